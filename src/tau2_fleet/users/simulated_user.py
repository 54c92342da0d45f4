"""The user simulator: the customer of a task, played by a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_fleet.llm.message_views import heard_text, own_turn, parse_call, tool_result
from tau2_fleet.llm.session import ModelSession, TurnCost

if TYPE_CHECKING:
    from tau2.data_model.message import AssistantMessage, ToolMessage, UserMessage

_AGENT_PHRASES = re.compile(
    r"how (can|may) i (help|assist) you|anything else i can (help|assist)|(happy|glad) to (help|assist) you", re.I
)


def speaks_as_agent(text: str | None) -> bool:
    """Whether a customer's text sounds like the agent's: counted and shown, never scored."""
    return bool(text and _AGENT_PHRASES.search(text))


class User:
    """The customer's side of one conversation."""

    def __init__(self, session: ModelSession) -> None:
        self.session = session
        self.turns_as_agent = 0

    async def next_message(self, incoming: Sequence[AssistantMessage | ToolMessage]) -> UserMessage:
        """The customer's answer to the agent's text or to its own tools' results.

        Raises:
            RoleError: the model has nothing to say.
            ModelError: the model could not be asked.
        """
        from tau2.data_model.message import UserMessage

        for message in incoming:
            self.session.history.append(tool_result(message) if message.role == "tool" else heard_text(message))
        reply = await self.session.ask()
        cost = TurnCost()
        cost.add(reply)
        turn = UserMessage(
            role="user",
            content=reply.text,
            tool_calls=[parse_call(call, "user") for call in reply.tool_calls] or None,
            cost=cost.cost_usd,
            usage=cost.usage_dict(),
        )
        self.session.history.append(own_turn(turn))
        self.turns_as_agent += speaks_as_agent(reply.text)
        return turn
