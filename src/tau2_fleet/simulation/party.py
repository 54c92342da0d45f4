"""The border to the code of a party, ours or anybody's: asks for its turns, and tells a model's trouble from its own.

`conversation.py` calls `ask_party`, `parties.py` makes parties and closes them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tau2_fleet.benchmark.package import AssistantMessage, UserMessage
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.llm.session import RoleError
from tau2_fleet.llm.types import ModelError

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import Agent
    from tau2_fleet.simulation.scaffolds import Scaffold
    from tau2_fleet.users.user import User

P = TypeVar("P")

log = logging.getLogger(__name__)


class PartyError(RoleError):
    """The party's own code failed, or brought something else than a turn; `ending` is what that comes to."""

    def __init__(self, message: str, ending: TerminationReason) -> None:
        super().__init__(message)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class PartySide:
    """What is asked of one side of a conversation."""

    message: type[Any]
    """The class of its turns."""
    error: TerminationReason
    """How a simulation ends that this side has failed."""


AGENT = PartySide(AssistantMessage, TerminationReason.agent_error)
USER = PartySide(UserMessage, TerminationReason.user_error)


def make_party(scaffold: Scaffold[P], context: Any, side: PartySide) -> P:
    """A party for one simulation.

    Raises:
        PartyError: its own code failed.
        ModelError: a model could not be asked.
    """
    try:
        return scaffold.make(context)
    except (Exception, SystemExit) as error:
        failure = _failed(scaffold.path, error, side)
        raise failure from failure.__cause__


async def ask_party(party: Agent | User, incoming: Any, side: PartySide) -> Any:
    """The party's next message, of the side's class.

    Raises:
        ModelError: a model could not be asked, wherever in the party that came up.
        RoleError: the party has nothing usable to say.
    """
    try:
        turn = await party.next_message(incoming)
    except (ModelError, RoleError):
        raise
    except (Exception, SystemExit) as error:
        failure = _failed(party.name, error, side)
        raise failure from failure.__cause__
    if isinstance(turn, side.message):
        turn = _tidied(turn)
        if turn.is_tool_call() or turn.has_text_content():
            return turn
        brought = "a message with neither text nor tool calls"
    else:
        brought = f"a {type(turn).__name__}"
    problem = f"{party.name}: next_message gave {brought}, wanted the next {side.message.__name__}"
    log.error("%s", problem)
    raise PartyError(problem, side.error)


async def close_party(party: Any) -> None:
    """Let a party go that has something to let go of: its `close`, if it has one; failures are logged."""
    close = getattr(party, "close", None)
    if close is None:
        return
    try:
        await close()
    except (Exception, SystemExit) as error:
        log.warning("%s: close failed: %s: %s", party.name, type(error).__name__, error)


def tell_over(party: Any, ending: str) -> None:
    """Tell a party that the conversation is over, if it has a `conversation_over`; failures are logged."""
    over = getattr(party, "conversation_over", None)
    if over is None:
        return
    try:
        over(ending)
    except (Exception, SystemExit) as error:
        log.warning("%s: conversation_over failed: %s: %s", party.name, type(error).__name__, error)


def _failed(name: str, error: BaseException, side: PartySide) -> Exception:
    """What a failure in a party's code comes to; a model's trouble behind it is no fault of that code."""
    behind: BaseException | None = error
    seen: set[int] = set()
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, ModelError):
            return behind
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
    problem = f"{name}: {type(error).__name__}: {' '.join(str(error).split())}"
    log.error("%s", problem, exc_info=error)
    return PartyError(problem, side.error)


def _tidied(turn: Any) -> Any:
    """The turn with no empty list of calls, and every call in its author's name."""
    if turn.tool_calls is None:
        return turn
    if any(call.requestor != turn.role for call in turn.tool_calls):
        own = [call.model_copy(update={"requestor": turn.role}) for call in turn.tool_calls]
        return turn.model_copy(update={"tool_calls": own})
    return turn if turn.tool_calls else turn.model_copy(update={"tool_calls": None})
