"""A record's conversation as the agent's model knew it, in OpenAI's chat form; `sft` and `dpo` are made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tau2_fleet.llm.conditions import Condition

Json = dict[str, Any]
AGENT = "agent"
BENCHMARK = "benchmark"
"""Author of the greeting, and of what a task's own message history holds."""
_STOP, _DONE = "###STOP###", "done"
"""What the record has in place of a solo agent's call that ends its work, and the tool that it called."""
SPOILT = frozenset({Condition.cut, Condition.degenerate, Condition.filtered, Condition.markup_left})
"""What a reply is no example for that has one of these."""


class Trained(StrEnum):
    """Whose turns a model is to learn."""

    agent = "agent"
    """The agent's own."""
    experts = "experts"
    """Those that experts took over."""
    both = "both"


@dataclass(frozen=True, slots=True)
class ExportedTurn:
    """One message, and what stands beside it."""

    message: Json
    """In OpenAI's form."""
    author: str
    """`system`, `user`, `tool`, `agent`, `expert-N`, or `benchmark`."""
    spoilt: bool = False
    """Whether the server or a limit took something from it."""

    def is_trained(self, trained: Trained) -> bool:
        """Whether a model is to learn it."""
        if self.spoilt:
            return False
        if self.author == AGENT:
            return trained is not Trained.experts
        return self.author.startswith("expert-") and trained is not Trained.agent

    @property
    def said(self) -> Any:
        """What two turns of different trials have in common that are the same: all but the ids of calls."""
        calls = self.message.get("tool_calls") or ()
        return self.message["role"], self.message["content"], [call["function"] for call in calls]


def agent_turns(
    messages: Sequence[Json], prompt: str | None, thinking: bool = False, objects: bool = False
) -> list[ExportedTurn]:
    """The conversation from the agent's side: its own and its experts' turns, the user's texts, its tools' results.

    Args:
        messages: of a record.
        prompt: the system prompt; None: it is not known, and there is none.
        thinking: whether turns carry what their author thought, as `reasoning_content`.
        objects: whether arguments of calls are objects, as many chat templates want them, and no JSON text.
    """
    turns = [] if prompt is None else [ExportedTurn({"role": "system", "content": prompt}, "system")]
    begun = False
    for message in messages:
        about = message.get("raw_data")
        about = about if isinstance(about, dict) else {}
        author = about.get("author")
        # What a model wrote has an author or a count of tokens; the greeting and a task's history have neither.
        begun = begun or isinstance(author, str) or bool(message.get("usage"))
        role = message.get("role")
        if role == "assistant":
            name = author if isinstance(author, str) else AGENT if begun else BENCHMARK
            turns.append(ExportedTurn(_own(message, about, thinking, objects), name, _is_spoilt(about)))
        elif role == "user" and not message.get("tool_calls"):
            turns.append(ExportedTurn({"role": "user", "content": message_text(message)}, "user"))
        elif role == "tool" and message.get("requestor", "assistant") == "assistant":
            answered = {"role": "tool", "tool_call_id": message.get("id"), "content": message_text(message)}
            turns.append(ExportedTurn(answered, "tool"))
    return turns


def message_text(message: Json) -> str:
    """A message's text; of content that is none, its JSON."""
    content = message.get("content")
    return content if isinstance(content, str) else "" if content is None else json.dumps(content)


def _own(message: Json, about: Json, thinking: bool, objects: bool) -> Json:
    calls = message.get("tool_calls") or ()
    if not calls and message.get("content") == _STOP and isinstance(about.get("dropped_calls"), list):
        calls = ({"id": f"call-{_DONE}", "name": _DONE, "arguments": {}},)
        message = {**message, "content": None}
    found: Json = {"role": "assistant", "content": message_text(message) or (None if calls else "")}
    if thinking and about.get("thinking"):
        found["reasoning_content"] = about["thinking"]
    if calls:
        found["tool_calls"] = [
            {
                "id": call.get("id"),
                "type": "function",
                # as the agent's history had it when the next turn was asked for
                "function": {"name": call.get("name"), "arguments": given if objects else json.dumps(given)},
            }
            for call in calls
            for given in (call.get("arguments"),)
        ]
    return found


def _is_spoilt(about: Json) -> bool:
    found = about.get("conditions")
    return isinstance(found, list) and any(str(one).partition(": ")[2] in SPOILT for one in found)
