"""What is a version's own of the benchmark: data, texts, tools of the customer, scoring, code. Its domains ask it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tau2_fleet.benchmark.identity import (
    BenchmarkIdentity,
    CodeIdentity,
    IdentifiedDomain,
    changed_data,
    data_identity,
    file_digest,
)
from tau2_fleet.benchmark.scoring.rules import ScoringRules, find_rules
from tau2_fleet.benchmark.settings import DEFAULT, BenchmarkSettings
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task
    from tau2.environment.environment import Environment as PackageEnvironment

GUIDELINE_FILES = ("simulation_guidelines.md", "simulation_guidelines_tools.md")
_CODE = ("data_model", "domains", "environment", "evaluator", "utils")
"""Folders of the package whose code results depend on."""


class VersionTraits:
    """What domains know of their version; this class is the installed package as it is, others say what differs."""

    name: str = DEFAULT
    scoring: str = DEFAULT
    """By whose rules it scores where nothing else is said."""
    judge_model: str | None = None
    """The model that its own evaluator asks about natural-language assertions, at temperature 0; None: not compared."""
    needs_data: frozenset[str] | None = frozenset()
    """Domains that it has no data of in the installed package; None: all."""
    needs_files: frozenset[str] = frozenset()
    """Of these the domains that it needs more than tasks of, so that not even others' results can be scored without."""
    falls_back: bool = False
    """Whether a domain or file that its data folder does not have is the installed package's."""
    shares_database: bool = False
    """Whether a task's initial data leave both sides with one database object: a mistake of 1.0.1."""
    own_code: tuple[str, ...] = ()
    """Files beside this one that add to the package's code."""

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        """
        Raises:
            UserError: the settings are not those of this version.
        """
        settings = settings or BenchmarkSettings()
        self.origin = ""
        """How the data folder was named, where not by its key."""
        data_dir = settings.data_dir
        if data_dir is None and os.environ.get("TAU2_DATA_DIR"):
            data_dir, self.origin = os.environ["TAU2_DATA_DIR"], " (TAU2_DATA_DIR)"
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser().resolve()
        if self.data_dir is not None and not self.data_dir.is_dir():
            key = "TAU2_DATA_DIR" if self.origin else "benchmark.data_dir"
            raise UserError(f"{key}={data_dir}: there is no such directory")
        if settings.path is not None and self.name != "custom":
            raise UserError(f"benchmark.path={settings.path}: only with benchmark=custom")
        self.rules: ScoringRules = find_rules(settings.scoring or self.scoring)

    def _key(self) -> tuple[object, ...]:
        return type(self), self.data_dir, self.rules

    def __eq__(self, other: object) -> bool:
        """Equal ones give the same domains."""
        return isinstance(other, VersionTraits) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def refuse_missing_data(self, name: str, base: str) -> None:
        """Raises UserError where a domain's data cannot be had without a folder that is named."""
        if self.data_dir is None and (self.needs_data is None or base in self.needs_data):
            raise UserError(
                f"benchmark={self.name}: the installed package does not have its data for {name}; name a checkout's "
                "data/ with benchmark.data_dir=DIR (or TAU2_DATA_DIR)"
            )

    def for_given_tasks(self) -> Self:
        """The same for who brings the tasks, as results files do: of its own data only what is more than tasks."""
        self.needs_data = self.needs_files
        return self

    def adapt(self, base: str, environment: PackageEnvironment, files: Mapping[str, Path]) -> None:
        """Give an environment of the package what this version has beside; `base` is the domain (`telecom`)."""

    def has_user_tools(self, base: str) -> bool | None:
        """Whether the customer of a domain has tools; None: as in the package."""
        return None

    def user_guidelines(self, with_tools: bool) -> str:
        """How a simulated user behaves; there is a variant for domains in which it has tools."""
        return self._guideline_files[GUIDELINE_FILES[with_tools]].read_text(encoding="utf-8")

    def text_digests(self) -> dict[str, str]:
        """SHA-256 (hex) of texts that are not the installed package's, by the names that `prompts.digests` has."""
        from tau2_fleet.benchmark import prompts

        found = {}
        for name, with_tools in (("user", False), ("user_with_tools", True)):
            text = self.user_guidelines(with_tools)
            if text != prompts.user_guidelines(with_tools):
                prompt = prompts.user_system_prompt("", with_tools, text)
                found[name] = hashlib.sha256(prompt.encode()).hexdigest()
        return found

    def user_tools_of(self, task: Task, raw: Mapping[str, Any], schemas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Which of the user's tools the simulated user of a task is shown; `raw` is the task as its file has it."""
        return schemas

    @cached_property
    def _guideline_files(self) -> dict[str, Path]:
        from tau2_fleet.benchmark.data import guidelines_file
        from tau2_fleet.benchmark.package import DATA_DIR

        own = Path(DATA_DIR, "tau2", "user_simulator")
        found = {name: self.data_dir and guidelines_file(self.data_dir, name) for name in GUIDELINE_FILES}
        return {name: path or own / name for name, path in found.items()}

    def code(self) -> CodeIdentity:
        """The code that its domains run on."""
        from tau2_fleet.benchmark.package import DISTRIBUTION, source

        root = source("tau2").parent
        files = [path for part in _CODE for path in sorted((root / part).rglob("*.py"))]
        digests = [f"{path.relative_to(root)} {file_digest(path)}" for path in files]
        here = Path(__file__).parent
        digests += [f"{name} {file_digest(here / name)}" for name in self.own_code]
        digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return CodeIdentity(DISTRIBUTION, importlib.metadata.version(DISTRIBUTION), digest)

    def identity(self, domains: Iterable[IdentifiedDomain]) -> BenchmarkIdentity:
        """What a result on these domains is a result of."""
        chosen = list(domains)
        files = {domain.name: domain.files.all() for domain in chosen}
        sources = {str(domain.source) for domain in chosen if domain.source is not None}
        source = self.data_dir if self.data_dir is not None or not sources else Path(", ".join(sorted(sources)))
        data = data_identity(source, files, [self.user_guidelines(with_tools) for with_tools in (False, True)])
        return BenchmarkIdentity(self.name, self.rules.name, self.code(), data, changed_data(self.name, data))


def offered_user_tools(raw: Mapping[str, Any], schemas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The user's tools that a task offers since 1.0: all without a list; of a list those that it names, and none where
    it names one that there is not."""
    named = raw.get("user_tools")
    if named is None:
        return schemas
    known = {schema["function"]["name"] for schema in schemas}
    return [schema for schema in schemas if schema["function"]["name"] in named] if known.issuperset(named) else []
