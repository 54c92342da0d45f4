"""The benchmark's domains: policies, tools, task sets and environments, read from the installed package.

`load_domain` is the way in, for `experiment` and the tools; everything it reads is read once per process.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tau2_fleet.benchmark.data import DomainFiles, domain_folder, missing_data
from tau2_fleet.benchmark.environment import Environment, FinalState, replayed_run
from tau2_fleet.benchmark.environment_template import EnvironmentTemplate
from tau2_fleet.benchmark.identity import file_digest
from tau2_fleet.benchmark.package import DATA_DIR, Message, Task
from tau2_fleet.benchmark.prepared import PreparedTask
from tau2_fleet.benchmark.raw_tasks import unknown_criteria, with_unknown_fields
from tau2_fleet.benchmark.scoring.rules import ScoringRules
from tau2_fleet.benchmark.transcript import Mismatch
from tau2_fleet.benchmark.version import BenchmarkVersion, find_version
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from tau2.environment.environment import Environment as PackageEnvironment

DOMAINS = ("mock", "retail", "airline", "telecom", "telecom-workflow")

_OPTIONS: dict[str, dict[str, Any]] = {"telecom-workflow": {"policy_type": "workflow"}}
"""Arguments of the package's `get_environment` beside its defaults."""

_WITHOUT_TASKS = (
    "bank", "basketball", "ecommerce", "medicine", "movie", "railway", "restaurant", "school", "travel", "weather",
)  # fmt: skip
"""Domains of the scripts that this program replaces, for which nobody has published tasks."""

_DATA_FOLDER = Path("tau2", "domains")
BASE = "base"
"""The task set that is meant when none is named."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a domain's data come to."""

    policy: str
    solo_policy: str | None
    agent_tools: list[dict[str, Any]]
    user_tools: list[dict[str, Any]]
    template: EnvironmentTemplate


class Domain:
    """A service template: one policy, one set of tools, one database, many tasks. Made by `load_domain`."""

    def __init__(
        self, name: str, files: DomainFiles, version: BenchmarkVersion | None = None, source: Path | None = None
    ) -> None:
        self.name = name
        self.files = files
        """The database, the policy and the tasks."""
        self.version = version or find_version()
        self.source = source
        """The folder of its data; None: the installed package's."""
        self._loaded: dict[str, list[Task]] = {}
        self._raw: dict[int, dict[str, Any]] = {}
        """Tasks as their file has them, by the `id` of what was made of them; kept, so that no other has it."""
        self._kept: list[Task] = []
        self._prepared: dict[int, PreparedTask] = {}

    @property
    def folder(self) -> Path:
        """Where its files are looked for first."""
        return self.files.folders[0]

    @property
    def rules(self) -> ScoringRules:
        """How its simulations are scored."""
        return self.version.rules

    @property
    def user_guidelines(self) -> str:
        """How its simulated user is told to behave."""
        return self.version.user_guidelines(self.has_user_tools)

    def user_tools_of(self, task: Task) -> list[dict[str, Any]]:
        """The tools that the simulated user of a task is shown, as OpenAI schemas."""
        return self.version.user_tools_of(task, self._raw.get(id(task), {}), self.user_tools)

    def as_written(self, task: Task) -> dict[str, Any]:
        """A task with every field that its file has, those included that nothing here knows; ready for JSON."""
        written: dict[str, Any] = with_unknown_fields(task.model_dump(mode="json"), self._raw.get(id(task), {}))
        return written

    @cached_property
    def _contents(self) -> Contents:
        """Read when it is first needed; tasks can be had without."""
        return self._read()

    def _read(self) -> Contents:
        """What the package makes of the data."""
        module = importlib.import_module(f"tau2.domains.{_base_name(self.name)}.environment")
        options = _OPTIONS.get(self.name, {})
        with _reading_from(module, self.files):
            try:
                template: PackageEnvironment = module.get_environment(**options)
                self.version.adapt(_base_name(self.name), template, self.files.all())
            except (OSError, ValueError) as error:
                raise UserError(
                    f"domain {self.name}: its data in {self.files.folders[0]} cannot be read: {_first_lines(error)}"
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
        """Read policy, tools and database now, which takes some tenths of a second; safe in a thread.

        Raises:
            UserError: the data cannot be read. Every use of them raises it too.
        """
        _ = self._contents

    @property
    def policy(self) -> str:
        return self._contents.policy

    @property
    def solo_policy(self) -> str | None:
        """What an agent that works alone reads; None where the domain has no such mode."""
        return self._contents.solo_policy

    @property
    def agent_tools(self) -> list[dict[str, Any]]:
        """OpenAI schemas, as those of the user's tools."""
        return self._contents.agent_tools

    @property
    def user_tools(self) -> list[dict[str, Any]]:
        return self._contents.user_tools

    @property
    def has_user_tools(self) -> bool:
        """Whether the customer has tools; known before the domain is loaded, by the package's files."""
        own = self.version.has_user_tools(_base_name(self.name))
        if own is not None:
            return own
        return importlib.util.find_spec(f"tau2.domains.{_base_name(self.name)}.user_tools") is not None

    @property
    def template(self) -> EnvironmentTemplate:
        return self._contents.template

    @property
    def tool_types(self) -> Mapping[str, str]:
        """`read`, `write`, `generic`, ... by the name of every tool, agent's and user's."""
        return self.template.tool_types

    def policy_of(self, task: Task) -> str | None:
        """The policy that the agent of this task reads; None: the domain's."""
        return None

    async def make_ready(self, task: Task) -> None:
        """Learn what is to be known of a task before its agent and user are made."""

    @property
    def supports_solo(self) -> bool:
        """Whether the agent can work alone, from a ticket."""
        return self.solo_policy is not None

    def task_sets(self) -> dict[str, int]:
        """The named task sets and how many tasks each has."""
        return {name: len(ids) for name, ids in self._splits.items()}

    def split(self, task_set: str) -> list[str] | None:
        """Ids of the tasks in a named set; None: there is none of this name."""
        return self._splits.get(task_set)

    def tasks(self, task_set: str = BASE, ids: Sequence[str] | None = None, limit: int | None = None) -> list[Task]:
        """Tasks of a named set, or of a JSON file, in the order of their file.

        `ids` keeps these alone, `limit` the first so many of what is left.

        Raises:
            UserError: there is no such set, file or task.
        """
        if task_set not in self._loaded:
            self._loaded[task_set] = self._load(task_set)
        tasks = self._loaded[task_set]
        if ids is not None:
            wanted = {str(task_id) for task_id in ids}
            known = [task.id for task in tasks]
            for task_id in wanted.difference(known):
                raise UserError(
                    f"domain {self.name}: the task set {task_set} has no task {task_id!r}{_nearest(task_id, known)}"
                )
            tasks = [task for task in tasks if task.id in wanted]
        return list(tasks if limit is None else tasks[:limit])

    def find(self, ids: Iterable[str]) -> dict[str, Task]:
        """Tasks of the domain's own file by their ids, of whatever set; those that it does not have are left out."""
        wanted = set(ids)
        return {task.id: task for task in self._read_tasks(self.files.path("tasks.json"), wanted)}

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
        """Prepare those that begin in a state of their own, so that an impossible one is found before anything runs.

        Raises:
            UserError: a task's initial state cannot be set up.
        """
        for task in tasks:
            if task.initial_state is not None:
                self.prepare(task)

    async def replayed(
        self, task: Task, messages: Sequence[Message], *, solo: bool = False, strict: bool = True
    ) -> tuple[FinalState, tuple[Mismatch, ...]]:
        """How a finished trajectory leaves the environment, and the answers of a replay that are not the recorded ones.

        Args:
            strict: such an answer is an error.

        Raises:
            TranscriptError: the trajectory is broken, or an answer is not the recorded one.
            ToolDeadline: a call reached its limits.
            UserError: the task's initial state cannot be set up.
        """
        run = await replayed_run(self.prepare(task), messages, solo=solo, strict=strict)
        return await run.environment.final_state(), run.differences

    def environment(self, task: Task, solo: bool = False) -> Environment:
        """A new environment in the task's initial state; costs some microseconds and a few kilobytes.

        Raises:
            UserError: the task's initial state cannot be set up, or the domain has no solo mode.
        """
        if solo and not self.supports_solo:
            raise UserError(f"domain {self.name} does not support agent.mode=solo")
        prepared = self.prepare(task)
        return Environment(prepared, prepared.opened, solo=solo)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what a result depends on: policy, tool schemas, and each data file by its name."""
        digests = {
            "policy": _sha256(self.policy.encode()),
            "tools": _sha256(json.dumps([self.agent_tools, self.user_tools], sort_keys=True).encode()),
        }
        for name, path in self.files.all().items():
            if path.suffix != ".md":
                digests[name] = file_digest(path)
        return digests

    @cached_property
    def _splits(self) -> dict[str, list[str]]:
        path = self.files.path("split_tasks.json")
        if not path.is_file():
            return {BASE: [str(task["id"]) for task in self._raw_tasks(self.files.path("tasks.json"))]}
        return {name: [str(task_id) for task_id in ids] for name, ids in _read_json(path).items()}

    def _load(self, task_set: str) -> list[Task]:
        splits = self._splits
        if task_set in splits:
            return self._tasks_of_set(task_set)
        path = Path(task_set).expanduser()
        if not path.is_file():
            sets = ", ".join(f"{name} ({len(ids)})" for name, ids in splits.items())
            raise UserError(
                f"domain {self.name}: no task set or file {task_set!r}{_nearest(task_set, splits)}; it has {sets}"
            )
        return self._read_tasks(path, None)

    def _tasks_of_set(self, task_set: str) -> list[Task]:
        return self._read_tasks(self.files.path("tasks.json"), set(self._splits[task_set]))

    def _read_tasks(self, path: Path, wanted: set[str] | None) -> list[Task]:
        # Selected before they are validated: telecom has 2285 tasks, of which the base set takes 114.
        raw_tasks = [raw for raw in self._raw_tasks(path) if wanted is None or str(raw["id"]) in wanted]
        return self._validated(str(path), raw_tasks)

    def _validated(self, origin: str, raw_tasks: list[dict[str, Any]]) -> list[Task]:
        """Tasks of the package's class; what their file has beside is kept.

        Raises:
            UserError: one is not of its form, or is judged by what nothing here can check.
        """
        for raw in raw_tasks:
            if unknown := unknown_criteria(raw, self.rules):
                raise UserError(f"{origin}: task {raw['id']} is judged by {unknown}, and nothing here can check that")
        try:
            tasks = [Task.model_validate(raw) for raw in raw_tasks]
        except ValidationError as error:
            raise UserError(f"{origin}: not a task of the benchmark's form: {_first_lines(error)}") from error
        self._raw.update((id(task), raw) for task, raw in zip(tasks, raw_tasks, strict=True))
        self._kept += tasks
        return tasks

    def _raw_tasks(self, path: Path) -> list[dict[str, Any]]:
        raw = _read_json(path)
        if isinstance(raw, dict):
            raw = raw.get("tasks")
        if not isinstance(raw, list) or not all(isinstance(task, dict) and "id" in task for task in raw):
            raise UserError(f"{path}: not a list of tasks")
        return raw


def load_domain(
    name: str,
    data_dir: Path | str | None = None,
    path: Path | str | None = None,
    *,
    version: BenchmarkVersion | None = None,
) -> Domain:
    """A domain, once per process.

    Args:
        name: one of `DOMAINS`, or any other with `path`.
        data_dir: (else the version's, which is by default the environment variable TAU2_DATA_DIR, else the package's
            own data) a folder that holds `tau2/domains/<name>`, or is itself such a domain's folder.
        path: the folder of a domain of one's own, as `own_domain` describes it.
        version: of the benchmark; None: the installed package as it is.

    Raises:
        UserError: there is no such domain, or no data for it in that folder.
    """
    if path is not None:
        if name in DOMAINS:
            raise UserError(f"domain.{name}.path: {name} is a domain of the benchmark; give yours a name of its own")
        return _load_own_domain(name, Path(path).expanduser().resolve())
    if name not in DOMAINS:
        if name in _WITHOUT_TASKS:
            raise UserError(
                f"domain {name}: the benchmark's package has no tasks for it; domains are {', '.join(DOMAINS)}"
            )
        if name == "banking_knowledge":
            raise UserError(
                f"domain {name}: the installed package does not have it; name a checkout of tau2 1.0 or later with "
                "benchmark=custom benchmark.path=PATH"
            )
        raise UserError(f"no domain {name!r}{_nearest(name, DOMAINS)}; domains are {', '.join(DOMAINS)}")
    version = version or find_version()
    given = None if data_dir is None else Path(data_dir).expanduser().resolve()
    return _load_domain(name, _files(name, given, version), version)


@cache
def _load_domain(name: str, files: DomainFiles, version: BenchmarkVersion) -> Domain:
    own = files.folders[0] if files.like is not None else None
    return Domain(name, files, version, own)


@cache
def _load_own_domain(name: str, folder: Path) -> Domain:
    from tau2_fleet.benchmark.own_domain import OwnDomain

    return OwnDomain(name, folder)


def _files(name: str, given: Path | None, version: BenchmarkVersion) -> DomainFiles:
    """Where the files of a domain lie.

    Raises:
        UserError: the folder that was named has none of it.
    """
    base = _base_name(name)
    packaged = Path(DATA_DIR) / _DATA_FOLDER / base
    if given is None:
        version.refuse_missing_data(name, base)
    data_dir, origin = (given, "") if given is not None else (version.data_dir, version.origin)
    if data_dir is None:
        return DomainFiles((packaged,))
    folder = domain_folder(data_dir, base)
    if folder is not None:
        return DomainFiles((folder, packaged) if version.falls_back else (folder,), like=packaged)
    if version.falls_back and version.needs_data is not None and base not in version.needs_data:
        return DomainFiles((packaged,))
    raise missing_data(name, data_dir, origin, base)


def _base_name(name: str) -> str:
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def _nearest(name: str, known: Iterable[str]) -> str:
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]!r}?" if found else ""


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).splitlines()[:3])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
