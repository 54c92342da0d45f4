"""Experts: stronger models that the agent can hand its turn to through the tool `call_expert`.

The expert sees the whole conversation, the unedited policy and the domain's own tools; it never
sees the agent's calls for experts, which stay in the agent's private history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.llm.call_ids import CallIdForm
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.session import ModelSession, RoleError
from tau2_fleet.llm.types import ChatMessage, FatalModelError, ModelError, Reply, ToolCallText

CALL_EXPERT = "call_expert"
MAX_FAILURES_PER_TURN = 3
_OTHER_WAYS = "Choose another expert or take this turn yourself."


@dataclass(frozen=True, slots=True)
class ExpertCard:
    """What the agent is told of an expert."""

    name: str
    """expert-1, expert-2 or expert-3."""
    model: str | None
    """A name that says nothing of where a checkpoint lies; None: the agent is told none."""
    strength: str
    input_usd: float
    """Price in USD per million input tokens."""
    output_usd: float
    """Price in USD per million output tokens."""
    latency_s: float | None
    """Typical seconds until an answer; None: not yet measured."""

    def describe(self) -> str:
        name = self.name if self.model is None else f"{self.name} ({self.model})"
        latency = "not yet measured" if self.latency_s is None else f"{self.latency_s:g} s"
        return (
            f"{name}: {self.strength}. Price per million tokens: ${self.input_usd:g} input, "
            f"${self.output_usd:g} output. Typical latency: {latency}."
        )


def call_expert_schema(cards: Sequence[ExpertCard]) -> dict[str, Any]:
    """The OpenAI schema of `call_expert` for the set of experts in use."""
    lines = "\n".join(f"- {card.describe()}" for card in cards)
    return {
        "type": "function",
        "function": {
            "name": CALL_EXPERT,
            "description": (
                "Hand this turn over to an expert model. The expert reads the whole conversation and the policy, and "
                "its reply or tool calls become your next turn. Stronger experts cost more and take longer, so choose "
                f"the cheapest one that is good enough for this turn.\n{lines}"
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "expert": {
                        "type": "string",
                        "enum": [card.name for card in cards],
                        "description": "Which expert takes this turn.",
                    }
                },
                "required": ["expert"],
            },
        },
    }


@dataclass(slots=True)
class ExpertHandoff:
    """The experts of one conversation, and what they know of it."""

    experts: Mapping[str, ModelSession]
    history: list[ChatMessage] = field(default_factory=list)
    """The public conversation from the agent's side: what each expert is shown; grows by `heard`."""
    max_failures: int = MAX_FAILURES_PER_TURN
    last_expert: str | None = None

    def heard(self, *messages: ChatMessage) -> None:
        """More of the conversation, with ids of tool calls that any server takes: they are another model's."""
        self.history.extend(message.fitted(CallIdForm.COMMON) for message in messages)

    @staticmethod
    def requested(reply: Reply) -> ToolCallText | None:
        """The first `call_expert` of a reply; every other call beside it is dropped."""
        return next((call for call in reply.tool_calls if call.name == CALL_EXPERT), None)

    async def hand_over(self, call: ToolCallText) -> Reply | str:
        """The expert's turn, or what to tell the agent when there is none.

        Raises:
            FatalModelError: the expert's provider will refuse every call alike.
        """
        name = _expert_name(call.arguments)
        session = self.experts.get(name or "")
        if session is None:
            first = next(iter(self.experts.values()))
            first.calls.mark("agent", Condition.expert_failed, f"there is no expert named {name!r}")
            return f"Error: no expert named {name!r}; there are {', '.join(self.experts)}."
        self.last_expert = name
        try:
            reply = await session.ask(self.history)
        except FatalModelError:
            raise
        except (ModelError, RoleError) as error:
            session.calls.mark(session.role, Condition.expert_failed, str(error))
            return f"Error: {name} did not answer. {_OTHER_WAYS}"
        # A call that was not offered to it: in the trajectory it would stand as a tool of the domain.
        if self.requested(reply) is None:
            return reply
        session.calls.mark(session.role, Condition.expert_failed, f"it called {CALL_EXPERT} itself")
        return f"Error: {name} did not take the turn. {_OTHER_WAYS}"


def _expert_name(arguments: str) -> str | None:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    name = value.get("expert") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None
