"""From which step on a task could not be solved any more: by playing what was done, and then what was left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.review.case import Case

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domain import Domain
    from tau2_fleet.benchmark.package import Task, ToolCall

_MOST = 40
"""Changes of one conversation that are looked at, from its end; each is an environment of its own."""


@dataclass(frozen=True, slots=True)
class _WriteCall:
    """A call that changed something."""

    turn: int
    call: ToolCall


def lost_at(case: Case, domain: Domain) -> int | None:
    """Index of the message whose call the gold state cannot be reached after, not even by all that was left to do.

    None where it could be reached to the end, so that something was left undone or untold, and where nothing can be
    said: a pass, another ending, a domain of another process, a task whose gold actions do not lead there themselves.
    """
    from tau2_fleet.benchmark.calculator import ToolDeadline
    from tau2_fleet.benchmark.local_domain import LocalDomain
    from tau2_fleet.benchmark.package import Task

    basis = set((case.record.get("reward_info") or {}).get("reward_basis") or ())
    if case.passed or case.ended_by_infrastructure or not basis & {"DB", "ENV_ASSERTION"} or not case.task:
        return None
    if not isinstance(domain, LocalDomain):
        return None
    try:
        task = Task.model_validate(case.task)
        return asyncio.run(_lost_at(case, domain, task, basis))
    except (ValueError, UserError, ToolDeadline):
        return None


async def _lost_at(case: Case, domain: Domain, task: Task, basis: set[str]) -> int | None:
    changes = _changes(case)
    found = None
    for end in range(len(changes), max(len(changes) - _MOST, 0) - 1, -1):
        if await _is_reachable(domain, task, [change.call for change in changes[:end]], basis):
            return found
        if end:
            found = changes[end - 1].turn
    return None  # the gold actions alone do not lead there


def _changes(case: Case) -> list[_WriteCall]:
    from tau2_fleet.benchmark.package import ToolCall

    return [
        _WriteCall(
            turn,
            ToolCall(
                id=str(call.get("id") or turn),
                name=str(call.get("name")),
                arguments=call.get("arguments") or {},
                requestor=call["requestor"],
            ),
        )
        for turn, call, failed in case.calls()
        if not failed and case.writes(str(call.get("name")))
    ]


async def _is_reachable(domain: Domain, task: Task, done: Sequence[ToolCall], basis: set[str]) -> bool:
    """Whether what was left of the gold actions leads from there to the gold state."""
    from tau2_fleet.benchmark.package import ToolCall

    environment = domain.environment(task)
    left = list((task.evaluation_criteria.actions if task.evaluation_criteria else None) or ())
    for call in done:
        await environment.respond(call)
        environment.sync()
        same = next((action for action in left if _is_same(action, call)), None)
        if same is not None:
            left.remove(same)
    for number, action in enumerate(left):
        call = ToolCall(id=f"left-{number}", name=action.name, arguments=action.arguments, requestor=action.requestor)
        if domain.tool_types.get(action.name) in ("write", None):
            await environment.respond(call)
            environment.sync()
    state = await environment.final_state()
    return ("DB" not in basis or state.db_match) and ("ENV_ASSERTION" not in basis or all(state.assertions))


def _is_same(action: Any, call: ToolCall) -> bool:
    return bool(action.name == call.name and action.arguments == call.arguments and action.requestor == call.requestor)
