"""Domains of somebody's tau2, played in its own process; `benchmark/versions/custom.py` makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.custom.environment import (
    RemoteEnvironment,
    compared,
    mismatches,
    sent_with_answer,
    state_of,
)
from tau2_fleet.benchmark.custom.process import CallHeld, Child, ChildError, ChildRefused
from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.environment import FinalState
from tau2_fleet.benchmark.scoring.rules import Replay, UnknownTool
from tau2_fleet.benchmark.task_sets import BASE, RawTask
from tau2_fleet.benchmark.transcript import Mismatch, RecordedToolCall, TranscriptError, recorded_tool_calls
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Message, Task
    from tau2_fleet.benchmark.version_traits import VersionTraits

OFFLINE_RETRIEVAL = ("bm25_grep", "bm25", "grep_only", "full_kb", "golden_retrieval", "no_knowledge")
"""Ways to look things up in banking_knowledge that need neither a key nor a sandbox."""
_RETRIEVAL, _RETRIEVAL_OPTIONS = "retrieval_variant", "retrieval_kwargs"
SCORED_BY = "no_knowledge"
"""Enough to score by: what is looked up changes no database."""


def takes_retrieval(child: Child, name: str) -> bool:
    """Whether the agent of a domain looks things up, in one of several ways.

    Raises:
        ChildRefused, ChildError: the code does not say.
    """
    return _RETRIEVAL in child.ask("parameters", name=name)


class RegistryTasks:
    """The tasks that a registry in another process has for a domain."""

    def __init__(self, domain: str, child: Child, source: Path) -> None:
        self._domain = domain
        self._child = child
        self._source = source
        self._given: dict[str | None, list[RawTask]] = {}

    @property
    def origin(self) -> str:
        return f"{self._domain} of {self._source}"

    def splits(self) -> Mapping[str, Sequence[str]]:
        return self._named_sets or {BASE: [str(raw["id"]) for raw in self.of_set(BASE)]}

    def of_set(self, name: str) -> list[RawTask]:
        return self._of_split(name if self._named_sets else None)

    def all(self) -> list[RawTask]:
        return self._of_split(None)

    @cached_property
    def _named_sets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self._ask("splits")
        return found

    def _of_split(self, split: str | None) -> list[RawTask]:
        if split not in self._given:
            self._given[split] = self._ask("tasks", split=split)
        return self._given[split]

    def _ask(self, what: str, **arguments: Any) -> Any:
        """
        Raises:
            UserError: the code cannot do it, or its process ended.
        """
        try:
            return self._child.ask(what, name=self._domain, **arguments)
        except (ChildRefused, ChildError) as error:
            raise UserError(f"benchmark.path={self._source}: {error}") from error


class CustomDomain(Domain):
    """A domain of the registry in another process."""

    def __init__(
        self,
        name: str,
        version: VersionTraits,
        child: Child,
        files: DomainFiles,
        source: Path,
        retrieval: str | None = None,
        retrieval_options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            files: its data, for their digests; a folder that is not there where it has none.
            retrieval: a variant of banking_knowledge, and its options.
        """
        self._registry = RegistryTasks(name, child, source)
        super().__init__(name, files, version, source, self._registry)
        self._child = child
        self._closed: list[int] = []
        self._options: dict[str, Any] = {}
        if retrieval is not None:
            self._options[_RETRIEVAL] = retrieval
        if retrieval_options:
            self._options[_RETRIEVAL_OPTIONS] = dict(retrieval_options)
        self._policies: dict[int, str] = {}

    # What is asked of the process.

    async def answer(self, what: str, **arguments: Any) -> Any:
        """What the process answers; environments that nobody has any more are closed on the way.

        Raises:
            ChildError, ChildRefused, CallHeld: it does not.
        """
        closed, self._closed = tuple(self._closed), []
        return await self._child.answer(what, closed=closed, **arguments)

    def next_number(self) -> int:
        """The number of a new environment."""
        return self._child.next_number()

    def forget(self, number: int) -> None:
        """An environment is needed no more."""
        self._closed.append(number)

    def opened(self, task: Task, solo: bool, calls: Sequence[RecordedToolCall]) -> dict[str, Any]:
        """What an environment is opened with: where a conversation begins, or stands after these calls."""
        return self._described(task, solo, strict=True) | {
            "options": self._options,
            "history": [sent_with_answer(one) for one in self.history(task)],
            "calls": [sent_with_answer(one) for one in calls],
        }

    def scored(self, task: Task, solo: bool, calls: Sequence[RecordedToolCall], *, strict: bool) -> dict[str, Any]:
        """What a run is scored by; `calls` are all of it, the task's message history among them."""
        options = {**self._options, _RETRIEVAL: SCORED_BY} if self._needs_retrieval else self._options
        return self._described(task, solo, strict=strict) | {
            "options": options,
            "history": [sent_with_answer(one) for one in self.history(task)],
            "calls": [sent_with_answer(one) for one in calls],
        }

    def _described(self, task: Task, solo: bool, *, strict: bool) -> dict[str, Any]:
        rules = {
            "only_writes": self.rules.replay is Replay.writes,
            "skip_unknown": self.rules.unknown_tool is UnknownTool.skip,
            "strict": strict,
        }
        return {"name": self.name, "task": self.as_written(task), "solo": solo, "rules": rules}

    def history(self, task: Task) -> list[RecordedToolCall]:
        """The calls of a task's message history.

        Raises:
            UserError: it is broken.
        """
        start = task.initial_state
        try:
            return recorded_tool_calls((start and start.message_history) or [])
        except TranscriptError as error:
            raise UserError(f"task {task.id}: its message history is broken: {error}") from error

    # What a domain is asked for.

    @cached_property
    def _told(self) -> dict[str, Any]:
        """Policies and tools."""
        options = self._options
        if self._needs_retrieval and _RETRIEVAL not in options:
            ways = ", ".join(OFFLINE_RETRIEVAL)
            raise UserError(
                f"domain {self.name}: choose domain.{self.name}.retrieval; {ways} need neither a key nor a sandbox"
            )
        try:
            told: dict[str, Any] = self._child.ask("domain", name=self.name, options=options)
        except (ChildRefused, ChildError) as error:
            way = f" (retrieval={options[_RETRIEVAL]}; without key and sandbox: {', '.join(OFFLINE_RETRIEVAL)})"
            raise UserError(f"benchmark.path={self.source}: {error}{way if _RETRIEVAL in options else ''}") from error
        return told

    @cached_property
    def _needs_retrieval(self) -> bool:
        """Whether it has variants, of which its default wants a key."""
        try:
            return takes_retrieval(self._child, self.name)
        except (ChildRefused, ChildError) as error:
            raise UserError(f"benchmark.path={self.source}: {error}") from error

    def load(self) -> None:
        _ = self._told

    @property
    def policy(self) -> str:
        return str(self._told["policy"])

    @property
    def solo_policy(self) -> str | None:
        found: str | None = self._told["solo_policy"]
        return found

    @property
    def agent_tools(self) -> list[dict[str, Any]]:
        return list(self._told["agent_tools"])

    @property
    def user_tools(self) -> list[dict[str, Any]]:
        return list(self._told["user_tools"] or ())

    @property
    def has_user_tools(self) -> bool:
        return self._told["user_tools"] is not None

    @property
    def tool_types(self) -> Mapping[str, str]:
        return dict(self._told["tool_types"])

    async def make_ready(self, task: Task) -> None:
        if self._told["by_task"] and id(task) not in self._policies:
            asked = {"name": self.name, "options": self._options, "task": self.as_written(task), "solo": False}
            try:
                self._policies[id(task)] = (await self.answer("task", **asked))["policy"]
            except ChildRefused as error:
                raise UserError(str(error)) from error

    def policy_of(self, task: Task) -> str | None:
        return self._policies.get(id(task))

    def environment(self, task: Task, solo: bool = False) -> RemoteEnvironment:
        if solo and not self.supports_solo:
            raise UserError(f"domain {self.name} does not support agent.mode=solo")
        return RemoteEnvironment(self, task, solo=solo)

    def prepare_all(self, tasks: Iterable[Task]) -> None:
        return

    async def replayed(
        self, task: Task, messages: Sequence[Message], *, solo: bool = False, strict: bool = True
    ) -> tuple[FinalState, tuple[Mismatch, ...]]:
        if solo and any(message.role == "user" for message in messages):
            raise TranscriptError("a message of the user in solo mode")
        calls = recorded_tool_calls(messages)
        if not compared(task):
            return FinalState(compared=False, db_match=True, differences=(), assertions=()), ()
        try:
            found = await self.answer("score", number=None, **self.scored(task, solo, calls, strict=strict))
        except ChildRefused as error:
            raise TranscriptError(str(error)) from error
        except CallHeld as error:
            raise ToolDeadline(str(error)) from error
        except ChildError as error:
            raise UserError(f"benchmark.path={self.source}: {error}") from error
        different = mismatches(calls, found["different"])
        if different and strict:
            raise TranscriptError(str(different[0]))
        return state_of(found), tuple(different)

    @cached_property
    def digests(self) -> dict[str, str]:
        tools = json.dumps([self.agent_tools, self.user_tools], sort_keys=True)
        return {
            "code": self.version.code().digest,
            "policy": _sha256(self.policy),
            "tools": _sha256(tools),
            "tasks": _sha256(json.dumps(self._registry.of_set(BASE), sort_keys=True)),
            **{name: digest for name, digest in self.data_digests.items() if not name.endswith(".md")},
        }

    @cached_property
    def data_digests(self) -> dict[str, str]:
        """SHA-256 of its data files, and of each folder of them as one."""
        found: dict[str, str] = {}
        folder = self.folder
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file())
                each = [[file.relative_to(path).as_posix(), _sha256(file.read_bytes())] for file in files]
                found[path.name] = _sha256(json.dumps(each))
            elif path.suffix in (".json", ".toml", ".md"):
                found[path.name] = _sha256(path.read_bytes())
        return found


def _sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
