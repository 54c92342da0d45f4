"""The cases of a run directory, one at a time in memory: records with their tasks and the tools that were offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tau2_fleet.analysis.domain_of_run import domain_of_run
from tau2_fleet.benchmark.custom.process import ChildError
from tau2_fleet.errors import UserError
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.line import Record, SimulationKey, decode_line
from tau2_fleet.record.overview import read_prompts
from tau2_fleet.record.reading import PROMPT_FILE, Damage
from tau2_fleet.record.task_texts import TaskTexts
from tau2_fleet.regular import lines_of, open_file
from tau2_fleet.review.case import Case

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domain import Domain

Json = dict[str, Any]


class Cases:
    """What a run directory holds to be reviewed."""

    def __init__(self, directory: Path) -> None:
        """Look what there is.

        Raises:
            UserError: the directory holds no record that can be read.
        """
        self.directory = directory
        self._records = LatestRecords(directory)
        self._texts = TaskTexts(directory)
        self._domains: dict[str, _DomainFacts] = {}
        self._tools = _offered(directory / PROMPT_FILE)

    @property
    def damage(self) -> Damage:
        """The lines that hold no record, as far as they were read."""
        return self._records.damage

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Case]:
        return self.read()

    def read(self, wanted: Callable[[SimulationKey], bool] | None = None) -> Iterator[Case]:
        """The cases of these simulations (None: of all), in the order of their lines."""
        for record in self._records.read(wanted):
            yield self._case(record)

    def find(self, key: SimulationKey) -> Case:
        """One that `read` has given before.

        Raises:
            UserError: it is not there any longer.
        """
        return self._case(self._records.find(key))

    def policy(self, case: Case) -> str | None:
        """What the agent of a case was told to do: its prompt as it was sent, else the domain's policy."""
        prompts = read_prompts(self.directory, case.record)
        return prompts.get("agent") or self._domain(case.key.domain).policy

    def domain(self, name: str) -> Domain | None:
        """The domain of some of the cases; None where it cannot be had."""
        return self._domain(name).found

    @property
    def missing(self) -> dict[str, str]:
        """Domains that cannot be had, with the reason: their tools and changes are judged by the record alone."""
        return {name: found.missing for name, found in self._domains.items() if found.missing is not None}

    def _case(self, record: Record) -> Case:
        domain = self._domain(record.domain)
        task = self._texts.get(f"{record.domain}/{record.task_id}") or domain.task(record.task_id)
        offered = {role: self._tools.get(digest) for role, digest in (record.tools or {}).items()}
        return Case(
            record.as_dict(),
            task or {},
            offered.get("agent") or domain.agent_tools,
            (offered.get("user") or frozenset()) if record.tools else domain.user_tools,
            domain.tool_types,
        )

    def _domain(self, name: str) -> _DomainFacts:
        if name not in self._domains:
            self._domains[name] = _DomainFacts(name, self.directory)
        return self._domains[name]


class _DomainFacts:
    """What the benchmark says of a domain; nothing where it cannot be had, as for one whose folder is gone."""

    def __init__(self, name: str, directory: Path) -> None:
        self.agent_tools: frozenset[str] | None = None
        self.user_tools: frozenset[str] | None = None
        self.tool_types: dict[str, str] = {}
        self.policy: str | None = None
        self.found: Domain | None = None
        self.missing: str | None = None
        """Why it cannot be had."""
        try:
            domain = domain_of_run(name, directory)
            self.tool_types = dict(domain.tool_types)
            self.agent_tools, self.user_tools = _names(domain.agent_tools), _names(domain.user_tools)
            self.policy = domain.policy
            self.found = domain
        except (UserError, ChildError) as error:
            self.missing = str(error)

    def task(self, task_id: str) -> Json | None:
        """A task that no results file has, of a live run say."""
        if self.found is None:
            return None
        try:
            found = self.found.find([task_id]).get(task_id)
        except (UserError, ChildError):
            return None
        return None if found is None else self.found.as_written(found)


def _names(schemas: Any) -> frozenset[str]:
    """Names of tools in OpenAI schemas."""
    return frozenset(str((schema.get("function") or {}).get("name")) for schema in schemas if isinstance(schema, dict))


def _offered(path: Path) -> dict[str, frozenset[str]]:
    """Digest to names of the sets of tools in `prompts.jsonl`; prompts, which are no JSON lists, are passed over."""
    found: dict[str, frozenset[str]] = {}
    try:
        with open_file(path) as file:
            for line in lines_of(file):
                try:
                    entry = decode_line(line)
                    text = entry["text"]
                    if text.startswith("["):
                        found[entry["digest"]] = _names(orjson.loads(text))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
    except OSError:
        pass
    return found
