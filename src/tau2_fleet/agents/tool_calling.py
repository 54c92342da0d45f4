"""The agent under test: a model with the domain's tools, and perhaps experts to hand a turn to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tau2_fleet.agents.expert_handoff import ExpertHandoff
from tau2_fleet.llm.message_views import heard_text, own_turn, parse_call, tool_result
from tau2_fleet.llm.session import ModelSession, RoleError, TurnCost
from tau2_fleet.llm.types import ChatMessage, Reply

if TYPE_CHECKING:
    from tau2.data_model.message import AssistantMessage, ToolMessage, UserMessage

_MESSAGE_TAGS = re.compile(r"</?message>", re.I)


def without_message_tags(text: str | None) -> str | None:
    """The reply without the `<message>` tags that some checkpoints were trained to write."""
    return None if text is None else _MESSAGE_TAGS.sub("", text).strip()


class Agent:
    """The agent's side of one conversation."""

    def __init__(
        self,
        session: ModelSession,
        *,
        handoff: ExpertHandoff | None = None,
        strip_message_tags: bool = False,
        solo_stop: tuple[str, str] | None = None,
    ) -> None:
        """`solo_stop` is the name of the tool that ends a solo run and the text that stands for it."""
        self.session = session
        self.handoff = handoff
        self.strip_message_tags = strip_message_tags
        self.solo_stop = solo_stop

    async def next_message(self, incoming: Sequence[UserMessage | ToolMessage]) -> AssistantMessage:
        """The agent's answer to the user's text or to its tools' results.

        Raises:
            RoleError: the model has nothing usable to say.
            ModelError: the model could not be asked.
        """
        heard = [tool_result(message) if message.role == "tool" else heard_text(message) for message in incoming]
        self._remember(*heard)
        reply = await self.session.ask()
        cost = TurnCost()
        cost.add(reply)
        about: dict[str, Any] = {"author": self.session.role}
        if self.handoff is not None:
            reply, about = await self._consult(self.handoff, reply, cost)
        return self._turn(reply, cost, about)

    async def _consult(self, handoff: ExpertHandoff, reply: Reply, cost: TurnCost) -> tuple[Reply, dict[str, Any]]:
        """Let experts speak as long as the agent calls one; their turn becomes the agent's."""
        about: dict[str, Any] = {"author": self.session.role}
        dropped: list[str] = []
        failures = 0
        while call := handoff.requested(reply):
            dropped += [other.name for other in reply.tool_calls if other is not call]
            outcome = await handoff.hand_over(call)
            if isinstance(outcome, Reply):
                cost.add(outcome)
                reply, about = outcome, {"author": handoff.last_expert, "called_by": self.session.role}
                break
            failures += 1
            if failures == handoff.max_failures:
                raise RoleError(f"the agent's last {failures} expert calls brought nothing: {outcome}")
            self.session.history += [
                ChatMessage("assistant", reply.text, (call,)),
                ChatMessage("tool", outcome, tool_call_id=call.id),
            ]
            reply = await self.session.ask()
            cost.add(reply)
        if dropped:
            about["dropped_calls"] = dropped
        if failures:
            about["failed_expert_calls"] = failures
        return reply, about

    def _turn(self, reply: Reply, cost: TurnCost, about: dict[str, Any]) -> AssistantMessage:
        from tau2.data_model.message import AssistantMessage

        text = without_message_tags(reply.text) if self.strip_message_tags else reply.text
        calls = [parse_call(call, "assistant") for call in reply.tool_calls] or None
        if self.solo_stop is not None:
            tool_name, stop_text = self.solo_stop
            if calls and any(call.name == tool_name for call in calls):
                beside = [call.name for call in calls if call.name != tool_name]
                about["dropped_calls"] = about.get("dropped_calls", []) + beside
                text, calls = stop_text, None
        if reply.thinking:
            about["thinking"] = reply.thinking
        turn = AssistantMessage(
            role="assistant",
            content=text,
            tool_calls=calls,
            cost=cost.cost_usd,
            usage=cost.usage_dict(),
            raw_data=about,
        )
        if not (turn.is_tool_call() or turn.has_text_content()):
            raise RoleError("the agent's reply holds nothing but tags")
        self._remember(own_turn(turn))
        return turn

    def _remember(self, *messages: ChatMessage) -> None:
        self.session.history.extend(messages)
        if self.handoff is not None:
            self.handoff.history.extend(messages)
