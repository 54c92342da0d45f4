"""The default user: the customer of a task, played by a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tau2_fleet.llm.message_views import heard, own_turn, parse_call
from tau2_fleet.llm.session import TurnCost

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import UserMessage
    from tau2_fleet.llm.types import ChatMessage
    from tau2_fleet.users.user import UserContext, UserInput

NAME = "user_simulator"
"""The benchmark's name of its user, for its results schema."""
_AGENT_PHRASES = re.compile(
    r"how (can|may) i (help|assist) you|anything else i can (help|assist)|(happy|glad) to (help|assist) you", re.I
)


def speaks_as_agent(text: str | None) -> bool:
    """Whether a customer's text sounds like the agent's: counted and shown, never scored."""
    return bool(text and _AGENT_PHRASES.search(text))


class SimulatedUser:
    """Asks its model for each turn. Subclasses change `next_message`, out of `hear` and `speak`, or what these do."""

    def __init__(self, context: UserContext) -> None:
        self.context = context
        self.model = context.model
        self.model.history = list(context.history)

    @property
    def name(self) -> str:
        """What results call it; a subclass is called by its class, or says `name = "..."`."""
        return NAME if type(self) is SimulatedUser else type(self).__name__

    @property
    def history(self) -> list[ChatMessage]:
        """What the model is sent behind its system prompt: the customer's own turns are the assistant's there."""
        return self.model.history

    async def next_message(self, incoming: UserInput) -> UserMessage:
        """The customer's answer to the agent's text or to its own tools' results.

        Raises:
            RoleError: the model has nothing to say.
            ModelError: the model could not be asked.
        """
        self.hear(incoming)
        return await self.speak()

    def hear(self, incoming: UserInput) -> None:
        """Take what came in into the history."""
        self.history.extend(heard(incoming))

    async def speak(self) -> UserMessage:
        """Ask the model for this turn, and remember it."""
        from tau2.data_model.message import UserMessage

        reply = await self.model.ask()
        cost = TurnCost()
        cost.add(reply)
        turn = UserMessage(
            role="user",
            content=reply.text,
            tool_calls=[parse_call(call, "user") for call in reply.tool_calls] or None,
            cost=cost.cost_usd,
            usage=cost.usage_dict(),
        )
        self.history.append(own_turn(turn))
        return turn
