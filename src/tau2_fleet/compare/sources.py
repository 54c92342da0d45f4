"""What is compared, a run or a results file, without its conversations; and run directories read as such.

`results_files.py` reads the others, `sides.py` puts them together into a baseline and a candidate.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tau2_fleet.analysis.rescore_files import INDEXED
from tau2_fleet.analysis.reviews import read_reviews
from tau2_fleet.analysis.rows import row_of
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.lock import LOCK_FILE, is_locked
from tau2_fleet.record.reading import RECORD_FILE, no_run
from tau2_fleet.record.summary import read_summary
from tau2_fleet.record.task_texts import TaskTexts

Json = dict[str, Any]
UNNAMED_BENCHMARK = "tau2-0.2"
"""What a result without a benchmark's name counts as."""
_LIMITS = {"deadline": "limits.simulation_timeout_s"}
"""Endings that a limit brings about, and its key."""


class EmptySource(UserError):
    """It holds no simulation that could be compared."""


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """One simulation, as comparisons see it."""

    task: str
    """`domain/id`."""
    trial: int
    seed: int
    passed: bool
    infrastructure: bool
    """Whether it ended for a reason outside agent, user and environment."""
    cause: str | None
    tool_calls: int
    steps: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    """None, as of tokens: it is not known."""
    duration_s: float
    left_out: bool | None = field(default=None, compare=False)
    """Whether a review leaves it out for an error of the customer; None: it has no review of its own."""

    @property
    def domain(self) -> str:
        return self.task.partition("/")[0]


@dataclass(slots=True)
class ResultsSource:
    """One run, or one results file."""

    path: Path
    outcomes: list[SimulationOutcome]
    keys: dict[str, Any]
    """What results depend on, by configuration key; empty where it is not known."""
    benchmark: dict[str, Any]
    """`benchmark.name`, `benchmark.scoring`, digests: what the number is a number of."""
    model: str
    """Of the agent."""
    limits: dict[str, Any] = field(default_factory=dict)
    """`limits.…` and their values."""
    met: set[str] = field(default_factory=set)
    """The limits that a simulation ran into."""
    notes: list[str] = field(default_factory=list)
    """What people should know of it."""
    criteria: dict[str, str] = field(default_factory=dict)
    """Digest of each task's content, by `domain/id`, as far as it is known."""

    @property
    def name(self) -> str:
        path = self.path.resolve()
        return path.parent.name if path.name == INDEXED else path.name

    def link(self, task: str, trial: int, beside: Path | None = None) -> str | None:
        """Where a report shows a simulation, as a link from a file in `beside`; None where there is no report."""
        for folder, prefix in ((self.path, ""), (self.path.parent, f"{self.name}:")):
            for page in (folder / "report.html", folder / "report" / "index.html"):
                if page.is_file():
                    place = quote(f"{prefix}{task}/{trial}", safe="/:")
                    where = page.resolve().as_uri() if beside is None else _relative(page, beside)
                    return f"{where}#{place}"
        return None


def read_run_source(directory: Path) -> ResultsSource:
    """A run directory.

    Raises:
        UserError: it is none, cannot be read, or (`EmptySource`) no simulation of it is over.
    """
    if not (directory / RECORD_FILE).is_file():
        raise no_run(directory)
    stored, reviews = LatestRecords(directory), read_reviews(directory)
    outcomes: list[SimulationOutcome] = []
    met: set[str] = set()
    for record in stored:
        review = reviews.get(record.key)
        fields = record.as_dict()
        is_own = review is not None and review.weight == 1.0 and review.is_of(fields)
        outcomes.append(outcome_of(fields, review.left_out if review is not None and is_own else None))
        met.update(key for ending, key in _LIMITS.items() if record.termination_reason == ending)
    if not outcomes:
        raise EmptySource(f"{directory}: no simulation is over yet{_damaged(stored)}")
    summary = read_summary(directory)
    keys, limits, notes = _configuration(directory)
    if stored.damage.count:
        notes.append(f"{directory}: {stored.damage}, passed over")
    if is_locked(directory / LOCK_FILE):
        notes.append(f"{directory} is still being written: the {len(outcomes)} simulations so far are compared")
    elif not summary:
        notes.append(f"{directory} has no summary, as if it was broken off: {len(outcomes)} simulations are compared")
    models = summary.get("models")
    agent = models.get("agent") if isinstance(models, Mapping) else None
    told = agent if isinstance(agent, Mapping) else {}
    model = keys.get("agent.model") or told.get("model") or told.get("provider")
    source = ResultsSource(
        directory,
        outcomes,
        keys,
        benchmark_of(summary, directory, notes, keys),
        str(model or "unknown"),
        limits,
        met,
        notes,
    )
    inventory = summary.get("inventory")
    overall = inventory.get("overall") if isinstance(inventory, Mapping) else None
    if isinstance(overall, Mapping) and int(overall.get("not_run") or 0):
        notes.append(f"{directory}: {overall['not_run']} of {overall.get('scheduled')} simulations were not run")
    return source


def _damaged(stored: LatestRecords) -> str:
    return f" ({stored.damage})" if stored.damage.count else ""


def _configuration(directory: Path) -> tuple[Json, Json, list[str]]:
    """Result keys, limits, and what is to be said of a run's configuration."""
    from tau2_fleet.config import flat
    from tau2_fleet.config.compare import result_keys
    from tau2_fleet.run.directory import load_saved

    try:
        config = load_saved(directory)
    except UserError as error:
        return {}, {}, [f"{directory}: its configuration is not known, so that nothing of it is compared ({error})"]
    limits = {key: value for key, value in flat(config).items() if key.startswith("limits.")}
    return result_keys(config), limits, []


def benchmark_of(summary: Json, path: Path, notes: list[str], keys: Mapping[str, Any]) -> Json:
    """Name, scoring and digests of a run's benchmark; parts that are not known are left out, and named.

    Args:
        keys: the run's configuration, which names the benchmark while there is no summary.
    """
    block = summary.get("benchmark")
    name = str(keys.get("benchmark.name") or UNNAMED_BENCHMARK)
    found: Json = {"benchmark.name": name, "benchmark.scoring": str(keys.get("benchmark.scoring") or name)}
    if isinstance(block, Mapping) and block.get("name"):
        found |= {"benchmark.name": block["name"], "benchmark.scoring": block.get("scoring") or block["name"]}
        code, data = block.get("code"), block.get("data")
        if isinstance(code, Mapping) and code.get("digest"):
            found["benchmark.code"] = code["digest"]
        domains = data.get("domains") if isinstance(data, Mapping) else None
        if isinstance(domains, Mapping):
            found |= {f"benchmark.data.{name}": digest for name, digest in domains.items() if digest}
        if isinstance(data, Mapping) and data.get("guidelines"):
            found["benchmark.data.user_simulator"] = data["guidelines"]
        return found
    digests = summary.get("digests")
    if isinstance(digests, Mapping) and digests:
        # Of earlier releases: a digest for each file.
        for part, files in digests.items():
            if isinstance(files, Mapping) and part != "prompts":
                found[f"benchmark.files.{part}"] = _digest(files)
    notes.append(f"{path}: it does not name its benchmark; counted as {name}, digest unknown")
    return found


def task_criteria(source: ResultsSource) -> dict[str, str]:
    """Digests of the tasks' contents; those of a run are read from its own results files."""
    if not source.criteria and source.path.is_dir():
        texts = TaskTexts(source.path)
        for name in {outcome.task for outcome in source.outcomes}:
            task = texts.get(name)
            if task is not None:
                source.criteria[name] = criteria_of(task)
    return source.criteria


def outcome_of(record: Json, left_out: bool | None = None) -> SimulationOutcome:
    """What comparisons need of a record; `left_out` is that of the outcome."""
    row = row_of(record)
    return SimulationOutcome(
        task=sys.intern(row.id),
        trial=int(row.trial),
        seed=row.seed,
        passed=is_success(row.reward),
        infrastructure=row.termination_reason in OURS,
        cause=None if row.cause is None else sys.intern(row.cause),
        tool_calls=row.tool_calls,
        steps=row.steps,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_usd,
        duration_s=row.duration_s,
        left_out=left_out,
    )


def criteria_of(task: Json) -> str:
    """Digest of what a task asks for."""
    return _digest({name: task.get(name) for name in ("user_scenario", "initial_state", "evaluation_criteria")})


def _digest(value: Any) -> str:
    text = json.dumps(_without_nothing(value), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _without_nothing(value: Any) -> Any:
    """The value without what says nothing: versions of the benchmark write more or fewer empty fields."""
    if isinstance(value, Mapping):
        parts = {str(name): _without_nothing(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not None}
    return [_without_nothing(part) for part in value] if isinstance(value, list | tuple) else value


def _relative(page: Path, beside: Path) -> str:
    import os

    return quote(os.path.relpath(page.resolve(), beside.resolve()).replace(os.sep, "/"), safe="/:")
