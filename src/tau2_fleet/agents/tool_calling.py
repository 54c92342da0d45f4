"""The default agent: a model with the domain's tools, and perhaps experts to hand a turn to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tau2_fleet.agents.expert_handoff import ExpertHandoff
from tau2_fleet.llm.message_views import heard, own_turn, parse_call
from tau2_fleet.llm.session import RoleError, TurnCost
from tau2_fleet.llm.types import ChatMessage, Reply

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import AgentContext, AgentInput
    from tau2_fleet.benchmark.package import AssistantMessage

_MESSAGE_TAGS = re.compile(r"</?message>", re.I)

NAMES = {"llm": "llm_agent", "solo": "llm_agent_solo", "ground_truth": "llm_agent_gt"}
"""The benchmark's names of its agents by their mode, for its results schema."""


def without_message_tags(text: str | None) -> str | None:
    """The reply without the `<message>` tags that some checkpoints were trained to write."""
    return None if text is None else _MESSAGE_TAGS.sub("", text).strip()


class ToolCallingAgent:
    """Asks its model for each turn. Subclasses change `next_message`, out of `hear` and `speak`, or what these do."""

    def __init__(self, context: AgentContext) -> None:
        self.context = context
        self.model = context.model
        self.model.history = list(context.history)
        self.handoff = ExpertHandoff(context.experts) if context.experts else None
        if self.handoff is not None:
            self.handoff.heard(*context.history)

    @property
    def name(self) -> str:
        """What results call it; a subclass is called by its class, or says `name = "..."`."""
        return NAMES[self.context.mode] if type(self) is ToolCallingAgent else type(self).__name__

    @property
    def history(self) -> list[ChatMessage]:
        """What the model is sent behind its system prompt."""
        return self.model.history

    async def next_message(self, incoming: AgentInput) -> AssistantMessage:
        """The agent's answer to the user's text or to its tools' results.

        Raises:
            RoleError: the model has nothing usable to say.
            ModelError: the model could not be asked.
        """
        self.hear(incoming)
        return await self.speak()

    def hear(self, incoming: AgentInput) -> None:
        """Take what came in into the history."""
        self._remember(*heard(incoming))

    async def speak(self) -> AssistantMessage:
        """Ask the model for this turn, let experts take it where it calls one, and remember it."""
        reply = await self.model.ask()
        cost = TurnCost()
        cost.add(reply)
        about: dict[str, Any] = {"author": self.model.role}
        if self.handoff is not None:
            reply, about = await self._consult(self.handoff, reply, cost)
        return self._turn(reply, cost, about)

    async def _consult(self, handoff: ExpertHandoff, reply: Reply, cost: TurnCost) -> tuple[Reply, dict[str, Any]]:
        """Let experts speak as long as the agent calls one; their turn becomes the agent's."""
        about: dict[str, Any] = {"author": self.model.role}
        dropped: list[str] = []
        failures = 0
        while call := handoff.requested(reply):
            dropped += [other.name for other in reply.tool_calls if other is not call]
            outcome = await handoff.hand_over(call)
            if isinstance(outcome, Reply):
                cost.add(outcome)
                reply, about = outcome, {"author": handoff.last_expert, "called_by": self.model.role}
                break
            failures += 1
            if failures == handoff.max_failures:
                raise RoleError(f"the agent's last {failures} expert calls brought nothing: {outcome}")
            self.history.extend(
                (
                    ChatMessage("assistant", reply.text, (call,)),
                    ChatMessage("tool", outcome, tool_call_id=call.id),
                )
            )
            reply = await self.model.ask()
            cost.add(reply)
        if dropped:
            about["dropped_calls"] = dropped
        if failures:
            about["failed_expert_calls"] = failures
        return reply, about

    def _turn(self, reply: Reply, cost: TurnCost, about: dict[str, Any]) -> AssistantMessage:
        from tau2.data_model.message import AssistantMessage

        text = without_message_tags(reply.text) if self.context.strip_message_tags else reply.text
        if reply.thinking:
            about["thinking"] = reply.thinking
        turn = AssistantMessage(
            role="assistant",
            content=text,
            tool_calls=[parse_call(call, "assistant") for call in reply.tool_calls] or None,
            cost=cost.cost_usd,
            usage=cost.usage_dict(),
            raw_data=about,
        )
        if not (turn.is_tool_call() or turn.has_text_content()):
            raise RoleError("the agent's reply holds nothing but tags")
        self._remember(own_turn(turn))
        return turn

    def _remember(self, *messages: ChatMessage) -> None:
        self.history.extend(messages)
        if self.handoff is not None:
            self.handoff.heard(*messages)
