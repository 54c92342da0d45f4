"""`--format sft`: conversations to fine-tune on, in OpenAI's form with tools, a line each, beside a data card."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache

import orjson

from tau2_fleet.export.conversation import ExportedTurn, Trained, agent_turns
from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.export.token_sequences import tokens_of
from tau2_fleet.export.training import CARD, TrainingSelection, add_training_arguments, card
from tau2_fleet.record.atomic import replaced, write_text
from tau2_fleet.record.line import encode_line

FILE = "train.jsonl"
FIELDS = {
    "messages": "the conversation as the agent's model knew it, in OpenAI's form; assistant messages have `weight` "
    "(OpenAI's loss mask), 1 where a model is to learn the turn",
    "tools": "the tools that the agent was offered, as JSON schemas (the domain's, where an older record does not say)",
    "authors": "who wrote each message: system, user, tool, agent, expert-N, or benchmark (greeting, task's history)",
    "loss_mask": "1 or 0 for each message; 0 also for turns that were cut, filtered, degenerate or left with markup",
    "token_sequences": "where the run had agent.return_token_ids: `ids` as the agent's model read and sampled them, "
    "each with `loss_mask` and `logprobs`; calls share a sequence as long as each prompt begins with all before it",
    "token_breaks": "calls (by their place in the record) whose prompt does not begin with what was read and sampled "
    "before: `same` ids of `of`",
    "run, domain, task_id, trial, seed": "which simulation it is",
    "reward, termination_reason": "how it ended",
}


class Sft:
    """A folder with `train.jsonl` and `README.md`."""

    folder = True

    def add_arguments(self, parser: Arguments) -> None:
        add_training_arguments(parser)

    def file_name(self, options: argparse.Namespace) -> str:
        return "sft"

    def write(self, export: Export) -> None:
        selection, counts = TrainingSelection(export.options.all), _Counts()
        with replaced(export.path / FILE) as file:
            for run in export.runs:
                writer = _Conversations(run, export.options)
                for record in selection.records(run):
                    line = run.converted(record, writer.line)
                    if line is None:
                        selection.left["odd records"] += 1
                    elif not line.learnt:
                        selection.left["without a turn to learn"] += 1
                    else:
                        selection.take(run, record)
                        counts.add(line)
                        file.write(line.encoded)
        selection.refuse_nothing()
        text = card(export, selection, "Conversations of τ²-bench for fine-tuning", FIELDS, counts.named)
        write_text(export.path / CARD, text)
        export.notes += [*selection.notes(), *counts.notes]
        total = selection.taken.total()
        export.notes.append(
            f"{total} conversations, {selection.passed} of them with reward 1; {counts.learnt} of {counts.messages} "
            f"messages to learn"
            + ("" if selection.passed == total else "; --min-reward 1 takes only those that succeeded")
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """One conversation."""

    encoded: bytes
    messages: int
    learnt: int
    """Messages that are to be learnt."""
    unbroken: bool | None
    """Whether each prompt begins with all that was sampled before; None: there are no token ids."""


@dataclass(slots=True)
class _Counts:
    """Sums over the lines."""

    messages: int = 0
    learnt: int = 0
    with_tokens: int = 0
    unbroken: int = 0

    def add(self, line: _Line) -> None:
        self.messages += line.messages
        self.learnt += line.learnt
        self.with_tokens += line.unbroken is not None
        self.unbroken += bool(line.unbroken)

    @property
    def named(self) -> dict[str, int]:
        """For the data card."""
        return {
            "messages": self.messages,
            "messages to learn": self.learnt,
            "conversations with token ids": self.with_tokens,
            "of them each prompt begins with all that was read and sampled before": self.unbroken,
        }

    @property
    def notes(self) -> list[str]:
        """For people."""
        if not self.with_tokens:
            return []
        told = f"{self.with_tokens} with token ids; in {self.unbroken} prompts begin with all that was sampled before"
        return [told if self.unbroken == self.with_tokens else f"{told}, for the others token_breaks says where not"]


class _Conversations:
    """Makes the lines of a run's records."""

    def __init__(self, run: Run, options: argparse.Namespace) -> None:
        self._run = run
        self._options = options
        self._encoded = Encoded(run)

    def line(self, record: Json) -> _Line:
        """The line of a record."""
        run, trained = self._run, Trained(self._options.train_on)
        turns = agent_turns(record["messages"], run.prompt(record), self._options.thinking, self._options.objects)
        mask = [int(turn.is_trained(trained)) for turn in turns]
        tokens = tokens_of(record, trained)
        about = {
            **identity(run, record),
            "authors": [turn.author for turn in turns],
            "loss_mask": mask,
            **(tokens or {}),
        }
        encoded = self._encoded.line(about, {"messages": (turns, mask)}, record)
        return _Line(encoded, len(turns), sum(mask), None if tokens is None else not tokens["token_breaks"])


def identity(run: Run, record: Json) -> Json:
    """Which simulation a line is of."""
    names = ("domain", "task_id", "trial", "seed", "reward", "termination_reason")
    return {"run": run.name, **{name: record[name] for name in names}, "model": run.model("agent")}


class Encoded:
    """Puts lines together; system prompts and tools, most of every line, are encoded once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._system = cache(_dumps)
        self._tools: dict[tuple[str, str], bytes] = {}

    def line(self, about: Json, conversations: dict[str, tuple[list[ExportedTurn], list[int]]], record: Json) -> bytes:
        """A JSON line.

        Args:
            about: what stands before the conversations.
            conversations: key to turns and their loss mask.
        """
        pieces = [encode_line(about).rstrip()[:-1]]
        for name, (turns, mask) in conversations.items():
            messages = b",".join([self._message(turn, weight) for turn, weight in zip(turns, mask, strict=True)])
            pieces.append(b',"%b":[%b]' % (name.encode(), messages))
        pieces.append(b',"tools":%b}\n' % self._encoded_tools(record))
        return b"".join(pieces)

    def _message(self, turn: ExportedTurn, weight: int) -> bytes:
        if turn.author == "system":
            return self._system(turn.message["content"])
        message = turn.message
        if message["role"] == "assistant":
            message = {**message, "weight": weight}
        return encode_line(message).rstrip()

    def _encoded_tools(self, record: Json) -> bytes:
        key = record["domain"], (record["tools"] or {}).get("agent", "")
        found = self._tools.get(key)
        if found is None:
            found = self._tools[key] = orjson.dumps(self._run.tools(record))
        return found


def _dumps(content: str) -> bytes:
    return encode_line({"role": "system", "content": content}).rstrip()
