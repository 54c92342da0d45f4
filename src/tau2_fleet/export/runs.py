"""The runs that an export reads: their records, prompts, tools and settings. Every format gets its data here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tau2_fleet.analysis.domain_of_run import domain_of_run
from tau2_fleet.benchmark.identity import BenchmarkIdentity
from tau2_fleet.benchmark.task_sets import meant_name
from tau2_fleet.errors import UserError
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.line import SimulationKey, decode_line
from tau2_fleet.record.reading import PROMPT_FILE, read_config
from tau2_fleet.record.summary import read_summary
from tau2_fleet.regular import lines_of, open_file
from tau2_fleet.telemetry.secrets import record_redactor

Json = dict[str, Any]
T = TypeVar("T")
_LONGEST = 100
TRAIN = "train"
"""The task set that models may be trained on."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which simulations are exported."""

    domains: tuple[str, ...] = ()
    """Empty: all."""
    tasks: frozenset[str] = frozenset()
    """As `domain/id` or `id`; empty: all."""
    min_reward: float | None = None
    max_reward: float | None = None

    def holds_key(self, key: SimulationKey) -> bool:
        """What can be said before the record is read."""
        if self.domains and key.domain not in self.domains:
            return False
        return not self.tasks or key.task_id in self.tasks or f"{key.domain}/{key.task_id}" in self.tasks

    def holds(self, record: Json) -> bool:
        """What can be said of a record whose key is wanted; the benchmark's tolerance of rewards is granted."""
        reward: float = record["reward"]
        return (self.min_reward is None or reward >= self.min_reward - 1e-6) and (
            self.max_reward is None or reward <= self.max_reward + 1e-6
        )

    def as_dict(self) -> Json:
        """Those that are set, for data cards."""
        named = {"domain": list(self.domains), "task": sorted(self.tasks)}
        found: Json = {name: value for name, value in named.items() if value}
        rewards = {"min_reward": self.min_reward, "max_reward": self.max_reward}
        return found | {name: value for name, value in rewards.items() if value is not None}


def refuse_unknown(filters: Filters, keys: Sequence[SimulationKey]) -> None:
    """Make sure that each name of the filters is one of these simulations', where there is any.

    Raises:
        UserError: one is not, and would be passed over in silence beside others.
    """
    domains = dict.fromkeys(key.domain for key in keys)
    tasks = dict.fromkeys(name for key in keys for name in (f"{key.domain}/{key.task_id}", key.task_id))
    for option, names, known in (("--domain", filters.domains, domains), ("--task", sorted(filters.tasks), tasks)):
        for name in names if known else ():
            if name not in known:
                there = f"; domains: {', '.join(domains)}" if known is domains else ""
                raise UserError(f"{option} {name}: no simulation is of it{meant_name(name, known)}{there}")


@dataclass
class Run:
    """One run directory."""

    directory: Path
    name: str
    """Short, different for each run of an export."""
    filters: Filters = field(default_factory=Filters)
    exported: int = 0
    """Records that were read and are wanted, over all passes."""
    odd: dict[str, str] = field(default_factory=dict)
    """Simulation to why its record could not be written in another form."""

    @cached_property
    def stored(self) -> LatestRecords:
        """Where the records are."""
        return LatestRecords(self.directory)

    @cached_property
    def summary(self) -> Json:
        """Empty where the run is not over."""
        return read_summary(self.directory)

    @cached_property
    def config(self) -> Json:
        """The composed configuration; empty where it cannot be read."""
        return read_config(self.directory)

    def records(self, wanted: Callable[[SimulationKey], bool] | None = None) -> Iterator[Json]:
        """The records that the filters let through, one at a time in memory."""

        def is_wanted(key: SimulationKey) -> bool:
            return self.filters.holds_key(key) and (wanted is None or wanted(key))

        for record in self.stored.read(is_wanted):
            found = record.as_dict()
            if self.filters.holds(found):
                self.exported += 1
                yield found

    def converted(self, record: Json, convert: Callable[[Json], T]) -> T | None:
        """Another form of a record; None for one that holds what no simulation does, which is named at the end."""
        try:
            return convert(record)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            label = SimulationKey(record["domain"], record["task_id"], record["trial"]).label
            self.odd[label] = f"{type(error).__name__}: {error}"[:_LONGEST]
            return None

    @cached_property
    def texts(self) -> dict[str, str]:
        """Digest to system prompt, or to the schemas of tools as JSON text."""
        found: dict[str, str] = {}
        try:
            with open_file(self.directory / PROMPT_FILE) as file:
                for line in lines_of(file):
                    try:
                        kept = decode_line(record_redactor.redact_bytes(line))
                        found[str(kept["digest"])] = str(kept["text"])
                    except (ValueError, KeyError, TypeError):
                        continue
        except OSError:
            pass
        return found

    def prompt(self, record: Json, role: str = "agent") -> str | None:
        """A role's system prompt as it was sent; None where it is not stored."""
        return self.texts.get(record["prompts"].get(role, ""))

    def tools(self, record: Json, role: str = "agent") -> list[Json]:
        """The tools that a role was offered; of records that do not say, those of the domain.

        Raises:
            UserError: they are not stored, and the domain is not at hand.
        """
        if record["tools"] is None:
            return self.domain_tools(record["domain"])
        digest = record["tools"].get(role)
        if digest is None:
            return []
        try:
            found: list[Json] = json.loads(self.texts[digest])
        except (KeyError, ValueError):
            return self.domain_tools(record["domain"])
        return found

    def domain_tools(self, domain: str) -> list[Json]:
        """The agent's tools of a domain, of the data that the run had.

        Raises:
            UserError: the domain is not at hand.
        """
        return domain_of_run(domain, self.directory, self.data_dir(domain)).agent_tools

    def train_tasks(self, domain: str) -> frozenset[str]:
        """Ids of the tasks in a domain's train split; empty where it has none.

        Raises:
            UserError: the domain is not at hand.
        """
        try:
            split = domain_of_run(domain, self.directory, self.data_dir(domain)).split(TRAIN)
        except UserError as error:
            raise UserError(f"{error}; --all takes every task, whatever its split") from error
        return frozenset(split or ())

    def data_dir(self, domain: str) -> Path | None:
        """Where the run had other data of a benchmark's domain from; None: the package's."""
        own = _entry(_entry(self.config, "domain"), domain).get("data_dir")
        if isinstance(own, str):
            return Path(own)
        found = _entry(self.config, "benchmark").get("data_dir")
        if not isinstance(found, str):
            return None
        # What a folder of another version's data does not have is the package's.
        folder = Path(found)
        lacks = folder.is_dir() and not (folder / "tau2" / "domains" / domain.partition("-")[0]).is_dir()
        return None if lacks else folder

    @cached_property
    def benchmark(self) -> BenchmarkIdentity:
        """Name, scoring, code and data; of an older run, which does not say, what it must have been."""
        return BenchmarkIdentity.of_summary(self.summary)

    def model(self, role: str) -> str | None:
        """What a role's model was asked for as."""
        about = (self.summary.get("models") or {}).get(role)
        name = about.get("model") if isinstance(about, dict) else None
        return str(name) if name is not None else None


def _entry(group: Json, name: str) -> Json:
    """A group of keys; empty where it is none."""
    found = group.get(name)
    return found if isinstance(found, dict) else {}
