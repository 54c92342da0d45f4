"""A domain that is played in this process: the package's environment on shared databases, read once per process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.environment import Environment, FinalState, replayed_run
from tau2_fleet.benchmark.environment_template import EnvironmentTemplate
from tau2_fleet.benchmark.identity import file_digest
from tau2_fleet.benchmark.package import Message, Task
from tau2_fleet.benchmark.prepared import PreparedTask
from tau2_fleet.benchmark.task_sets import first_lines
from tau2_fleet.benchmark.transcript import Mismatch
from tau2_fleet.benchmark.version_traits import VersionTraits
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from tau2.environment.environment import Environment as PackageEnvironment

_OPTIONS: dict[str, dict[str, Any]] = {"telecom-workflow": {"policy_type": "workflow"}}
"""Arguments of the package's `get_environment` beside its defaults."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a domain's data come to."""

    policy: str
    solo_policy: str | None
    agent_tools: list[dict[str, Any]]
    user_tools: list[dict[str, Any]]
    template: EnvironmentTemplate


class LocalDomain(Domain):
    """One policy, one set of tools, one database; `_read` is what makes it of its data."""

    def __init__(self, name: str, files: DomainFiles, version: VersionTraits, source: Path | None = None) -> None:
        super().__init__(name, files, version, source)
        self._prepared: dict[int, PreparedTask] = {}

    @cached_property
    def _contents(self) -> Contents:
        """Read when it is first needed; tasks can be had without."""
        return self._read()

    def _read(self) -> Contents:
        """What the package makes of the data."""
        module = importlib.import_module(f"tau2.domains.{base_name(self.name)}.environment")
        options = _OPTIONS.get(self.name, {})
        with _reading_from(module, self.files):
            try:
                template: PackageEnvironment = module.get_environment(**options)
                self.version.adapt(base_name(self.name), template, self.files.all())
            except (OSError, ValueError) as error:
                raise UserError(
                    f"domain {self.name}: its data in {self.files.folders[0]} cannot be read: {first_lines(error)}"
                ) from error
            try:
                solo_policy: str | None = module.get_environment(solo_mode=True, **options).get_policy()
            except (OSError, ValueError):
                solo_policy = None
        user_tools = template.get_user_tools() if template.user_tools is not None else []
        return Contents(
            policy=template.get_policy(),
            solo_policy=solo_policy,
            agent_tools=[tool.openai_schema for tool in template.get_tools()],
            user_tools=[tool.openai_schema for tool in user_tools],
            template=EnvironmentTemplate(template),
        )

    def load(self) -> None:
        _ = self._contents

    @property
    def policy(self) -> str:
        return self._contents.policy

    @property
    def solo_policy(self) -> str | None:
        return self._contents.solo_policy

    @property
    def agent_tools(self) -> list[dict[str, Any]]:
        return self._contents.agent_tools

    @property
    def user_tools(self) -> list[dict[str, Any]]:
        return self._contents.user_tools

    @property
    def has_user_tools(self) -> bool:
        """Known before the domain is loaded, by the package's files."""
        own = self.version.has_user_tools(base_name(self.name))
        if own is not None:
            return own
        return importlib.util.find_spec(f"tau2.domains.{base_name(self.name)}.user_tools") is not None

    @property
    def template(self) -> EnvironmentTemplate:
        return self._contents.template

    @property
    def tool_types(self) -> Mapping[str, str]:
        return self.template.tool_types

    def prepare(self, task: Task) -> PreparedTask:
        """What the simulations of a task share; made on the first call.

        Raises:
            UserError: the task's initial state cannot be set up.
        """
        prepared = self._prepared.get(id(task))
        if prepared is None:
            # The prepared task holds the task, so its id stays its own.
            prepared = self._prepared[id(task)] = PreparedTask(
                self.template, task, self.rules, shares_database=self.version.shares_database
            )
        return prepared

    def prepare_all(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task.initial_state is not None:
                self.prepare(task)

    async def replayed(
        self, task: Task, messages: Sequence[Message], *, solo: bool = False, strict: bool = True
    ) -> tuple[FinalState, tuple[Mismatch, ...]]:
        run = await replayed_run(self.prepare(task), messages, solo=solo, strict=strict)
        return await run.environment.final_state(), run.differences

    def environment(self, task: Task, solo: bool = False) -> Environment:
        if solo and not self.supports_solo:
            raise UserError(f"domain {self.name} does not support agent.mode=solo")
        prepared = self.prepare(task)
        return Environment(prepared, prepared.opened, solo=solo)

    @cached_property
    def digests(self) -> dict[str, str]:
        digests = {
            "policy": _sha256(self.policy.encode()),
            "tools": _sha256(json.dumps([self.agent_tools, self.user_tools], sort_keys=True).encode()),
        }
        for name, path in self.files.all().items():
            if path.suffix != ".md":
                digests[name] = file_digest(path)
        return digests


def base_name(name: str) -> str:
    """The package's folder of a domain: `telecom-workflow` is telecom with another policy."""
    return name.partition("-")[0]


@contextmanager
def _reading_from(module: ModuleType, files: DomainFiles) -> Iterator[None]:
    """While it lasts, a domain's module reads its files from where they lie."""
    paths = {name: value for name, value in vars(module).items() if name.endswith("_PATH") and isinstance(value, Path)}
    for name, path in paths.items():
        setattr(module, name, files.path(path.name))
    try:
        yield
    finally:
        for name, path in paths.items():
            setattr(module, name, path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
