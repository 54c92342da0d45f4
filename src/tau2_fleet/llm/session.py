"""A role that speaks through a model: its history, its tools, and what to do about empty replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.conditions import Condition, why_unusable
from tau2_fleet.llm.types import ChatMessage, ChatModel, ChatRequest, ModelError, Reply, ToolSet, Usage

EMPTY_REPLY_ATTEMPTS = 3
REPEATS = 3
"""Texts in a row that say the same before it is told."""

log = logging.getLogger(__name__)


class RoleError(Exception):
    """The role itself failed (agent_error or user_error), not the infrastructure around it."""


@dataclass(slots=True)
class ModelSession:
    """One side's private view of the conversation and the model that speaks for it.

    Scaffolds may set `system`, `tools`, `tool_choice` and `history` as they please; what `system` is at the end
    stands in the record as the role's prompt.
    """

    role: str
    """Last part of the session id: agent, user, judge, expert-N."""
    model: ChatModel
    session_id: str
    system: ChatMessage | None
    """What every request begins with; None: nothing."""
    tools: ToolSet | None
    seed: int | None
    calls: CallLog
    deadline: float | None = None
    tool_choice: str | None = None
    history: list[ChatMessage] = field(default_factory=list)
    _told: int = 0
    """Messages of the prompt that the log has, at level DEBUG."""
    _last_text: str = ""
    """What its last text said, but for blanks and case."""
    _times: int = 0
    """How often in a row it has said that."""

    async def ask(self, history: Sequence[ChatMessage] | None = None, *, with_tools: bool = True) -> Reply:
        """The model's answer to the history (its own when none is given); it is not added to it.

        A reply without text and call is noted as such and asked for again with the next seed, twice at most;
        nothing is invented in its place.

        Raises:
            RoleError: every reply was empty; it says how.
            ModelError: the model could not be asked.
        """
        messages = [*(self.history if history is None else history)]
        if self.system is not None:
            messages.insert(0, self.system)
        tools = self.tools if with_tools else None
        if log.isEnabledFor(logging.DEBUG):
            self._tell_prompt(messages)
        for attempt in range(EMPTY_REPLY_ATTEMPTS):
            request = ChatRequest(
                messages=messages,
                session=self.session_id,
                tools=tools,
                tool_choice=None if tools is None else self.tool_choice,
                seed=None if self.seed is None else self.seed + attempt,
                deadline=self.deadline,
            )
            try:
                reply = await self.model.complete(request)
            except ModelError as error:
                if error.stats is not None:
                    self.calls.add(self.role, error.stats)
                raise
            if history is None and self._repeats(reply):
                reply.stats.note(Condition.repeated)
            self.calls.add(self.role, reply.stats, reply, request.seed)
            log.debug("reply of %s: %r %s", self.role, reply.text, reply.tool_calls or "")
            if not reply.empty:
                return reply
        why = why_unusable(reply.stats.conditions, reply.stats.details)
        raise RoleError(
            f"{self.role} gave {EMPTY_REPLY_ATTEMPTS} replies in a row without text or tool call; of the last: {why}"
        )

    def _repeats(self, reply: Reply) -> bool:
        """Whether its texts say the same for the third time in a row; replies that call tools are passed over."""
        if reply.tool_calls or reply.empty:
            return False
        text = "".join((reply.text or "").split()).casefold()
        self._times = self._times + 1 if text == self._last_text else 1
        self._last_text = text
        return self._times >= REPEATS

    def _tell_prompt(self, messages: Sequence[ChatMessage]) -> None:
        """Log what the prompt has more than the one before: with the system prompt at first."""
        new = messages if self._told > len(messages) else messages[self._told :]
        self._told = len(messages)
        for message in new:
            log.debug("prompt of %s: %s", self.role, message.encoded.decode())


@dataclass(slots=True)
class TurnCost:
    """What one turn cost: the sum over the calls that made it."""

    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0

    def add(self, reply: Reply) -> None:
        self.usage.add(reply.stats.usage)
        self.cost_usd += reply.stats.cost_usd

    def usage_dict(self) -> dict[str, int]:
        """In the benchmark's words."""
        return {"completion_tokens": self.usage.output_tokens, "prompt_tokens": self.usage.input_tokens}
