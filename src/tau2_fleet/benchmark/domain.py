"""What a domain is to all who use it: its texts, its tools, its tasks, and environments to play them in.

`LocalDomain` is one that this process plays, `CustomDomain` one of somebody's tau2 in a process of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.raw_tasks import with_unknown_fields
from tau2_fleet.benchmark.task_sets import BASE, FileTasks, TaskSets, TaskSource

if TYPE_CHECKING:
    from tau2_fleet.benchmark.environment import FinalState
    from tau2_fleet.benchmark.package import Message, Task, ToolCall, ToolMessage
    from tau2_fleet.benchmark.scoring.rules import ScoringRules
    from tau2_fleet.benchmark.transcript import Mismatch
    from tau2_fleet.benchmark.version_traits import VersionTraits


class TaskEnvironment(Protocol):
    """Tools and databases of one simulation."""

    @property
    def task(self) -> Task: ...

    async def respond(self, call: ToolCall) -> ToolMessage:
        """Run a tool call and give the benchmark's exact answer, an error included.

        Raises:
            ToolDeadline: the call does not end; the simulation cannot go on.
        """

    def sync(self) -> None:
        """Let both sides see what the other has done; the orchestrator does it after every step."""

    async def final_state(self) -> FinalState:
        """Compare with the gold state and run the task's assertions; asked once, when the run is over.

        Raises:
            ToolDeadline: a call reached its limits.
        """


class Domain(ABC):
    """A service world: one policy, one set of tools, one database, many tasks. Made by `load_domain`."""

    def __init__(
        self,
        name: str,
        files: DomainFiles,
        version: VersionTraits,
        source: Path | None = None,
        tasks: TaskSource | None = None,
    ) -> None:
        """
        Args:
            tasks: where its tasks come from; None: its files.
        """
        self.name = name
        self.files = files
        """The database, the policy and the tasks."""
        self.version = version
        self.source = source
        """The folder of its data; None: the installed package's."""
        self._tasks = TaskSets(name, tasks or FileTasks(files), self.rules)

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

    # Policy and tools.

    @abstractmethod
    def load(self) -> None:
        """Read policy, tools and database now, which takes some tenths of a second; safe in a thread.

        Raises:
            UserError: the data cannot be read. Every use of them raises it too.
        """

    @property
    @abstractmethod
    def policy(self) -> str: ...

    @property
    @abstractmethod
    def solo_policy(self) -> str | None:
        """What an agent that works alone reads; None where the domain has no such mode."""

    @property
    @abstractmethod
    def agent_tools(self) -> list[dict[str, Any]]:
        """OpenAI schemas, as those of the user's tools."""

    @property
    @abstractmethod
    def user_tools(self) -> list[dict[str, Any]]: ...

    @property
    @abstractmethod
    def has_user_tools(self) -> bool:
        """Whether the customer has tools."""

    @property
    @abstractmethod
    def tool_types(self) -> Mapping[str, str]:
        """`read`, `write`, `generic`, ... by the name of every tool, agent's and user's."""

    @property
    def supports_solo(self) -> bool:
        """Whether the agent can work alone, from a ticket."""
        return self.solo_policy is not None

    @property
    @abstractmethod
    def digests(self) -> dict[str, str]:
        """SHA-256 of what a result depends on: policy, tool schemas, and each data file by its name."""

    # Tasks.

    def task_sets(self) -> dict[str, int]:
        """The named task sets and how many tasks each has."""
        return {name: len(ids) for name, ids in self._tasks.splits.items()}

    def split(self, task_set: str) -> list[str] | None:
        """Ids of the tasks in a named set; None: there is none of this name."""
        ids = self._tasks.splits.get(task_set)
        return None if ids is None else list(ids)

    def tasks(self, task_set: str = BASE, ids: Sequence[str] | None = None, limit: int | None = None) -> list[Task]:
        """Tasks of a named set, or of a JSON file, in the order of their file.

        `ids` keeps these alone, `limit` the first so many of what is left.

        Raises:
            UserError: there is no such set, file or task.
        """
        return self._tasks.select(task_set, ids, limit)

    def find(self, ids: Iterable[str]) -> dict[str, Task]:
        """The domain's own tasks by their ids, of whatever set; those that it does not have are left out."""
        return self._tasks.find(ids)

    def as_written(self, task: Task) -> dict[str, Any]:
        """A task with every field that its file has, those included that nothing here knows; ready for JSON."""
        written: dict[str, Any] = with_unknown_fields(task.model_dump(mode="json"), self._tasks.written(task))
        return written

    def user_tools_of(self, task: Task) -> list[dict[str, Any]]:
        """The tools that the simulated user of a task is shown, as OpenAI schemas."""
        return self.version.user_tools_of(task, self._tasks.written(task), self.user_tools)

    def policy_of(self, task: Task) -> str | None:
        """The policy that the agent of this task reads; None: the domain's."""
        return None

    async def make_ready(self, task: Task) -> None:  # noqa: B027  (most know all of a task from the start)
        """Learn what is to be known of a task before its agent and user are made."""

    # Environments.

    @abstractmethod
    def prepare_all(self, tasks: Iterable[Task]) -> None:
        """Prepare those that begin in a state of their own, so that an impossible one is found before anything runs.

        Raises:
            UserError: a task's initial state cannot be set up.
        """

    @abstractmethod
    def environment(self, task: Task, solo: bool = False) -> TaskEnvironment:
        """A new environment in the task's initial state; costs some microseconds and a few kilobytes.

        Raises:
            UserError: the task's initial state cannot be set up, or the domain has no solo mode.
        """

    @abstractmethod
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
