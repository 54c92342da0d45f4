"""The environment of one simulation, played in another process; made by `CustomDomain.environment`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.comparison import Difference
from tau2_fleet.benchmark.custom.process import CallHeld, ChildEnded, ChildError, ChildRefused, ChildUnopened
from tau2_fleet.benchmark.environment import FinalState
from tau2_fleet.benchmark.package import ToolMessage
from tau2_fleet.benchmark.transcript import Mismatch, RecordedToolCall, mismatch
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Task, ToolCall

_TRIES = 4
"""Processes that may end, each at somebody else's request, before a question is given up."""


class RemoteDomain(Protocol):
    """What an environment needs of its domain, and of the process that plays it."""

    async def answer(self, what: str, **arguments: Any) -> Any:
        """What the process answers.

        Raises:
            ChildError, ChildRefused, CallHeld: it does not.
        """
        ...

    def next_number(self) -> int:
        """The number of a new environment."""
        ...

    def forget(self, number: int) -> None:
        """An environment is needed no more."""
        ...

    def opened(self, task: Task, solo: bool, calls: Sequence[RecordedToolCall]) -> dict[str, Any]:
        """What an environment is opened with, that begins or stands after these calls."""
        ...

    def scored(self, task: Task, solo: bool, calls: Sequence[RecordedToolCall], *, strict: bool) -> dict[str, Any]:
        """What a run is scored by."""
        ...

    def history(self, task: Task) -> list[RecordedToolCall]:
        """The calls of a task's message history."""
        ...


class RemoteEnvironment:
    """Tools and databases of one simulation; its calls are kept, so that it can be made again in another process."""

    def __init__(self, domain: RemoteDomain, task: Task, *, solo: bool = False) -> None:
        self.solo = solo
        self.task = task
        self._domain = domain
        self._number = domain.next_number()
        self._calls: list[RecordedToolCall] = []
        self._sync = False
        """Whether the two sides are to be synced before the next call."""
        weakref.finalize(self, domain.forget, self._number)

    async def respond(self, call: ToolCall) -> ToolMessage:
        """Run a tool call and give the code's answer, an error included.

        Raises:
            ToolDeadline: the call does not end.
            ChildError: the process ended or failed.
        """
        sync, self._sync = self._sync, False
        found = await self._ask("call", sync=sync, call=sent(call))
        answer = ToolMessage(
            id=call.id, content=found["content"], requestor=call.requestor, role="tool", error=found["error"]
        )
        self._calls.append(RecordedToolCall(call, answer, len(self._calls)))
        return answer

    def sync(self) -> None:
        """Let both sides see what the other has done; before the next call, as nobody looks earlier."""
        self._sync = True

    async def final_state(self) -> FinalState:
        """Compare with the gold state and run the task's assertions; asked once, when the run is over.

        Raises:
            ToolDeadline, ChildError: as `respond`.
        """
        if not compared(self.task):
            return FinalState(compared=False, db_match=True, differences=(), assertions=())
        calls = [*self._domain.history(self.task), *self._calls]
        found = await self._ask("score", **self._domain.scored(self.task, self.solo, calls, strict=True))
        different = mismatches(calls, found["different"])
        notes = [f"scored as it ended: a replay gives other answers, because {one}" for one in different]
        return state_of(found, notes)

    async def _ask(self, what: str, **arguments: Any) -> Any:
        """What the process answers about this environment, which is opened where it is not."""
        for _ in range(_TRIES):
            try:
                return await self._domain.answer(what, number=self._number, **arguments)
            except ChildUnopened:
                await self._open()
            except ChildEnded as error:
                if error.guilty:
                    raise
            except CallHeld as error:
                raise ToolDeadline(str(error)) from error
            except ChildRefused as error:
                raise UserError(str(error)) from error
        raise ChildError(f"its process ended {_TRIES} times while this simulation waited")

    async def _open(self) -> None:
        arguments = self._domain.opened(self.task, self.solo, self._calls)
        try:
            different = await self._domain.answer("open", number=self._number, **arguments)
        except ChildEnded as error:
            if error.guilty:
                raise
            return
        if different:
            [first] = mismatches([*self._domain.history(self.task), *self._calls], different)
            if not self._calls:
                raise UserError(f"task {self.task.id}: its message history does not fit its data: {first}")
            raise ChildError(f"its process ended, and in a new one its calls have other answers: {first}")


def compared(task: Task) -> bool:
    """Whether the task asks for anything of the environment."""
    criteria = task.evaluation_criteria
    return criteria is not None and not (criteria.actions is None and criteria.env_assertions is None)


def sent(call: ToolCall) -> dict[str, Any]:
    """A call as the process reads it."""
    return {"id": call.id, "name": call.name, "arguments": call.arguments, "requestor": call.requestor}


def sent_with_answer(recorded: RecordedToolCall) -> dict[str, Any]:
    """A call and what was answered."""
    return {**sent(recorded.call), "answer": recorded.answer.content}


def mismatches(calls: Sequence[RecordedToolCall], different: Sequence[dict[str, Any]]) -> list[Mismatch]:
    """The answers that differ, as the replay here would tell them."""
    found = []
    for one in different:
        recorded = calls[one["index"]]
        again = recorded.answer.model_copy(update={"content": one["answer"]})
        if (difference := mismatch(recorded, again)) is not None:
            found.append(difference)
    return found


def state_of(found: dict[str, Any], notes: Sequence[str] = ()) -> FinalState:
    """What the process found of a final state."""
    return FinalState(
        compared=True,
        db_match=found["db_match"],
        differences=tuple(Difference(**one) for one in found["differences"]),
        assertions=tuple(found["assertions"]),
        notes=(*notes, *found["failed"]),
    )
