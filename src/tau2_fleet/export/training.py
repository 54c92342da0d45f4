"""What `sft` and `dpo` share: which simulations a model may learn from, and their data card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

from tau2_fleet import __version__
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.export.conversation import Trained
from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.runs import TRAIN, Run
from tau2_fleet.llm.types import without_surrogates
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.reading import PROMPT_FILE

Json = dict[str, Any]
CARD = "README.md"


def add_training_arguments(parser: Arguments) -> None:
    """Options of both."""
    parser.add_argument(
        "--all", action="store_true", help=f"tasks outside the {TRAIN} split too: what is measured on them is then void"
    )
    parser.add_argument(
        "--train-on",
        choices=[whose.value for whose in Trained],
        default=Trained.agent.value,
        metavar="WHOSE",
        help="whose turns have a loss mask of 1: agent (default), experts, or both",
    )
    parser.add_argument("--thinking", action="store_true", help="put what the agent thought into reasoning_content")
    parser.add_argument(
        "--objects",
        action="store_true",
        help="arguments of calls as objects, for chat templates that make JSON of them (Qwen, Hermes, Llama); default: "
        "JSON text, as OpenAI has it",
    )


@dataclass
class TrainingSelection:
    """Which simulations are taken, and why others were left."""

    all_tasks: bool
    taken: Counter[str] = field(default_factory=Counter)
    """By domain."""
    passed: int = 0
    """Of those taken, with reward 1."""
    left: Counter[str] = field(default_factory=Counter)
    """Why, in words, to how many."""
    tasks: set[str] = field(default_factory=set)
    without_prompt: int = 0
    """Of those taken, with a system prompt that is not stored."""

    def wanted(self, run: Run) -> Callable[[SimulationKey], bool]:
        """Whether a simulation's task may be trained on, known before its record is read."""
        if self.all_tasks:
            return lambda key: True
        train = cache(run.train_tasks)

        def is_train(key: SimulationKey) -> bool:
            if key.task_id in train(key.domain):
                return True
            self.left[f"of tasks outside the {TRAIN} split"] += 1
            return False

        return is_train

    def records(self, run: Run) -> Iterator[Json]:
        """A run's records that can be learnt from."""
        wanted = self.wanted(run)
        asked = 0

        def counted(key: SimulationKey) -> bool:
            nonlocal asked
            found = wanted(key)
            asked += found
            return found

        before = run.exported
        for record in run.records(counted):
            if record["termination_reason"] in OURS:
                self.left["ended by the infrastructure"] += 1
            else:
                yield record
        if lost := asked - (run.exported - before):
            self.left["outside the rewards asked for, or damaged"] += lost

    def take(self, run: Run, record: Json) -> None:
        """It is in."""
        self.without_prompt += run.prompt(record) is None
        self.taken[record["domain"]] += 1
        self.passed += is_success(record["reward"])
        self.tasks.add(f"{record['domain']}/{record['task_id']}")

    def notes(self) -> list[str]:
        """What people should know before they train."""
        if not self.without_prompt:
            return []
        return [f"{self.without_prompt} have no system prompt: {PROMPT_FILE} of their run does not hold it"]

    def refuse_nothing(self) -> None:
        """Nothing to learn from is an error: an empty file would be noticed late.

        Raises:
            UserError: nothing was taken.
        """
        if not self.taken:
            why = "; ".join(f"{count} {reason}" for reason, count in self.left.items()) or "none is as asked for"
            hint = (
                "" if self.all_tasks or not any(TRAIN in reason for reason in self.left) else "; --all takes all tasks"
            )
            raise UserError(f"no simulation to learn from: {why}{hint}")


def card(
    export: Export, selection: TrainingSelection, what: str, fields: dict[str, str], counts: dict[str, Any]
) -> str:
    """The data card, in the form that hubs of data sets read.

    Args:
        what: the kind of data, in a line.
        fields: of a line of the file: name to meaning.
        counts: more counts, by their names.
    """
    tasks = "all tasks" if selection.all_tasks else f"tasks of the {TRAIN} split only"
    lines = [
        "---",
        "license: other",
        "language: [en]",
        f"tags: [tau2-bench, {export.options.format}, tool-use]",
        "---",
        f"# {what}",
        "",
        f"Written {date.today().isoformat()} by tau2-fleet {__version__} (`tau2-fleet export --format "
        f"{export.options.format}`): {tasks}, loss on turns of: {export.options.train_on}.",
        "",
    ]
    if selection.all_tasks:
        lines += ["**Holds tasks that models are measured on: scores of a model trained on it mean nothing.**", ""]
    lines += [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in counts.items()),
        f"| simulations | {selection.taken.total()} |",
        *(f"| of {domain} | {count} |" for domain, count in sorted(selection.taken.items())),
        f"| with reward 1 | {selection.passed} |",
        f"| tasks | {len(selection.tasks)} |",
        *([f"| without their system prompt | {selection.without_prompt} |"] if selection.without_prompt else ()),
        *(f"| left out: {reason} | {count} |" for reason, count in sorted(selection.left.items())),
        f"| filters | `{json.dumps(export.filters.as_dict(), ensure_ascii=False)}` |",
        "",
        "## Fields",
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in fields.items()),
        "",
        "## Where it comes from",
        "",
    ]
    for run in export.runs:
        lines += _about(run, sorted(selection.taken))
    lines += [
        "",
        "## Licence",
        "",
        "Tasks, policies and tools are τ²-bench's, under the licences of its package (MIT, Apache-2.0 for NVIDIA's "
        "changes). What models wrote may be bound by the terms of those who made or serve them, which often say what "
        "may be trained on it: look before you share or train.",
        "",
    ]
    return str(without_surrogates("\n".join(lines)))


def _about(run: Run, domains: list[str]) -> list[str]:
    benchmark, summary = run.benchmark, run.summary
    returned = summary.get("returned_models") or {}
    lines = [
        f"- run `{run.name}`: benchmark {benchmark.label} (code {benchmark.code.package} {benchmark.code.version} "
        f"`{benchmark.code.digest}`, data `{benchmark.data.digest}`), "
        f"result digest `{summary.get('result_digest')}`, tau2-fleet commit "
        f"`{(summary.get('versions') or {}).get('git_commit')}`",
        f"  - models as asked for: `{json.dumps(summary.get('models'), ensure_ascii=False)}`",
        f"  - as the answers named them: `{json.dumps(returned, ensure_ascii=False)}`",
    ]
    digests = summary.get("digests") or {}
    lines += [f"  - {name}: `{json.dumps(digests[name])}`" for name in (*domains, "prompts") if name in digests]
    return lines
