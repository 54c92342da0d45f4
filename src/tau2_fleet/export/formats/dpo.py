"""`--format dpo`: pairs of a better and a worse trial of one task, to train preferences on, beside a data card."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from tau2_fleet.errors import UserError
from tau2_fleet.export.conversation import ExportedTurn, Trained, agent_turns
from tau2_fleet.export.export_format import Arguments, Export, Refused
from tau2_fleet.export.formats.sft import Encoded
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.export.training import CARD, TrainingSelection, add_training_arguments, card
from tau2_fleet.record.atomic import replaced, write_text
from tau2_fleet.record.line import SimulationKey

FILE = "train.jsonl"
_MARGIN = 1e-6
_PAIRS = 8
FIELDS = {
    "prompt": "the messages with which both trials begin: the longest common beginning of the two conversations, of "
    "equal author, text and calls",
    "chosen, rejected": "what follows in the trial with the higher and with the lower reward, to its end; "
    "assistant messages have `weight`",
    "tools": "the tools that the agent was offered in both",
    "parted_by": "whose message is the first that differs: `agent` (both answer the same prompt), `user` or `tool`",
    "prompt_messages": "how many messages `prompt` has",
    "chosen_loss_mask, rejected_loss_mask, chosen_authors, rejected_authors": "as in sft, of each part's messages",
    "chosen_run, chosen_trial, chosen_seed, chosen_reward (and of rejected)": "which simulations they are",
}


@dataclass(frozen=True, slots=True)
class _Trial:
    """One simulation that can be in a pair."""

    run: Run
    key: SimulationKey
    reward: float


class Dpo:
    """A folder with `train.jsonl` and `README.md`."""

    folder = True

    def add_arguments(self, parser: Arguments) -> None:
        add_training_arguments(parser)
        parser.add_argument(
            "--pairs", type=int, default=_PAIRS, metavar="N", help="at most so many of a task (default: %(default)s)"
        )
        parser.add_argument(
            "--parted-by-agent", action="store_true", help="only pairs whose first different message is the agent's"
        )

    def file_name(self, options: argparse.Namespace) -> str:
        return "dpo"

    def write(self, export: Export) -> None:
        if export.options.pairs < 1:
            raise UserError("--pairs is at least 1")
        selection = TrainingSelection(export.options.all)
        groups = _groups(export, selection)
        pairs = shared = 0
        written: set[tuple[str, SimulationKey]] = set()
        encoders = {run.name: Encoded(run) for run in export.runs}
        with replaced(export.path / FILE) as file:
            for trials in groups:
                for better, worse in _pairs(trials, export.options.pairs):
                    chosen, rejected = (trial.run.stored.find(trial.key).as_dict() for trial in (better, worse))
                    found = better.run.converted(
                        chosen, partial(_pair, export, better.run, worse.run, rejected, selection)
                    )
                    if found is None:
                        continue
                    about, parts = found
                    for trial, record in ((better, chosen), (worse, rejected)):
                        about |= _which("chosen" if trial is better else "rejected", trial.run, record)
                        if (trial.run.name, trial.key) not in written:
                            written.add((trial.run.name, trial.key))
                            selection.take(trial.run, record)
                    file.write(encoders[better.run.name].line(about, parts, chosen))
                    pairs += 1
                    shared += len(parts["prompt"][0])
        if not pairs:
            left = "; ".join(f"{count} {reason}" for reason, count in selection.left.items())
            raise Refused(f"dpo: no pair is left of those that there could be: {left}")
        counts = {"pairs": pairs, "messages of a prompt, on average": f"{shared / pairs:.1f}"}
        text = card(export, selection, "Preferences between trials of τ²-bench tasks", FIELDS, counts)
        write_text(export.path / CARD, text)
        export.notes += selection.notes()
        export.notes.append(f"{pairs} pairs of {len(selection.tasks)} tasks")


def _groups(export: Export, selection: TrainingSelection) -> list[list[_Trial]]:
    """Trials of one task under one prompt, of all runs together.

    Raises:
        Refused: no task has two, or none has two with different rewards.
    """
    groups: dict[tuple[str, str, str, str], list[_Trial]] = {}
    for run in export.runs:
        for record in selection.records(run):
            key = SimulationKey(record["domain"], record["task_id"], record["trial"])
            same = record["prompts"].get("agent", ""), (record["tools"] or {}).get("agent", "")
            groups.setdefault((*key[:2], *same), []).append(_Trial(run, key, record["reward"]))
    if not groups:
        selection.refuse_nothing()
    if all(len(trials) == 1 for trials in groups.values()):
        raise Refused(
            f"dpo needs two trials of a task or more, and every task here ({len(groups)}) has one: "
            "run with num_trials=4, or give more run directories"
        )
    differing = [trials for trials in groups.values() if next(_pairs(trials, 1), None) is not None]
    if not differing:
        raise Refused(
            f"dpo needs trials of one task with different rewards, and no task here ({len(groups)}) has such: "
            "more trials, or a higher temperature, may bring some"
        )
    return differing


def _pairs(trials: list[_Trial], most: int) -> Iterator[tuple[_Trial, _Trial]]:
    """Better and worse; widest margins first, and not one trial again and again."""
    ranked = sorted(trials, key=lambda trial: -trial.reward)
    places = product(range(len(ranked)), reversed(range(len(ranked))))
    found = [(a, b) for a, b in places if ranked[a].reward > ranked[b].reward + _MARGIN]
    found.sort(
        key=lambda pair: (ranked[pair[1]].reward - ranked[pair[0]].reward, abs(pair[0] + pair[1] - len(ranked) + 1))
    )
    for a, b in found[:most]:
        yield ranked[a], ranked[b]


def _pair(
    export: Export, run: Run, other_run: Run, rejected: Json, selection: TrainingSelection, chosen: Json
) -> tuple[Json, dict[str, tuple[list[ExportedTurn], list[int]]]] | None:
    """What a line says of a pair; None where there is nothing to learn from it, which is noted."""
    options, trained = export.options, Trained(export.options.train_on)
    better = agent_turns(chosen["messages"], run.prompt(chosen), options.thinking, options.objects)
    worse = agent_turns(rejected["messages"], other_run.prompt(rejected), options.thinking, options.objects)
    at = _shared(better, worse)
    if at in (len(better), len(worse)):
        selection.left["pairs of which one is the beginning of the other"] += 1
        return None
    roles = {turns[at].message["role"] for turns in (better, worse)}
    parted_by = "agent" if roles == {"assistant"} else min(roles - {"assistant"}, key="tool user system".index)
    if options.parted_by_agent and parted_by != "agent":
        selection.left["pairs parted by another than the agent"] += 1
        return None
    worse = _with_ids_of(better[:at], worse, at)
    masks = [[int(turn.is_trained(trained)) for turn in turns[at:]] for turns in (better, worse)]
    if not all(any(mask) for mask in masks):
        selection.left["pairs without a turn to learn"] += 1
        return None
    about: Json = {
        "domain": chosen["domain"],
        "task_id": chosen["task_id"],
        "prompt_messages": at,
        "parted_by": parted_by,
    }
    parts = {"prompt": (better[:at], [0] * at)}
    for name, turns, mask in (("chosen", better, masks[0]), ("rejected", worse, masks[1])):
        about |= {f"{name}_authors": [turn.author for turn in turns[at:]], f"{name}_loss_mask": mask}
        parts[name] = (turns[at:], mask)
    return about, parts


def _shared(better: list[ExportedTurn], worse: list[ExportedTurn]) -> int:
    """With how many equal messages both begin."""
    for at, (one, other) in enumerate(zip(better, worse, strict=False)):
        if one.author != other.author or one.said != other.said:
            return at
    return min(len(better), len(worse))


def _which(name: str, run: Run, record: Json) -> Json:
    fields = {f"{name}_{field}": record[field] for field in ("trial", "seed", "reward", "termination_reason")}
    return {f"{name}_run": run.name, **fields, f"{name}_model": run.model("agent")}


def _with_ids_of(prompt: list[ExportedTurn], turns: list[ExportedTurn], at: int) -> list[ExportedTurn]:
    """The other conversation behind the prompt, answering the prompt's calls by their ids there."""
    renamed = {
        own["id"]: its["id"]
        for theirs, ours in zip(prompt, turns, strict=False)
        for its, own in zip(theirs.message.get("tool_calls") or (), ours.message.get("tool_calls") or (), strict=True)
    }
    fitted = [
        ExportedTurn({**turn.message, "tool_call_id": renamed[turn.message["tool_call_id"]]}, turn.author, turn.spoilt)
        if turn.message.get("tool_call_id") in renamed
        else turn
        for turn in turns[at:]
    ]
    return [*turns[:at], *fitted]
