"""The closed set of ways in which a reply can differ from what its model said.

Found by `llm.examine` in any answer, and by `llm.model`, `llm.session` and the hand-over to experts around it.

Records, summaries, events and tables name the conditions by these words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class Condition(StrEnum):
    """What was found in a reply; several may hold at once. Those that a server causes come first."""

    aborted = "aborted"
    """The server broke the answer off (`finish_reason` abort and the like): asked again, never scored."""
    error_inside = "error_inside"
    """Status 200 with an error in place of the answer or beside it: asked again, never scored."""
    arguments_empty = "arguments_empty"
    """A tool call whose arguments are nothing, blanks or null: called with `{}`."""
    arguments_double = "arguments_double"
    """Arguments in a wrapping: a JSON string with a JSON object in it, or special tokens after the object: taken apart
    once."""
    tool_name_marked = "tool_name_marked"
    """Special tokens, a channel, `functions.` or blanks around the name of an offered tool: taken off."""
    markup_left = "markup_left"
    """A tool call in the text or the thinking that the server's parser did not take: stays text."""
    only_thinking = "only_thinking"
    """Thinking, and neither text nor call: asked again, at last the role's error."""
    thinking_left = "thinking_left"
    """Thinking in the text, or what a server let the model write behind the end of its turn: cut off and kept; nothing
    in it is said to anybody."""
    usage_missing = "usage_missing"
    """No usable token counts: estimated from the length of what was sent and received."""
    empty = "empty"
    """Neither text, call nor thinking: asked again, at last the role's error."""
    arguments_malformed = "arguments_malformed"
    """Arguments that are no JSON object: executed all the same, and answered by the tool's own error."""
    tool_unknown = "tool_unknown"
    """A tool that nobody offered: executed, and answered by the benchmark."""
    filtered = "filtered"
    """A content filter or a refusal: kept."""
    cut = "cut"
    """The answer reached its limit of tokens: kept."""
    degenerate = "degenerate"
    """One character or a short cycle over nearly all of a long text: kept."""
    repeated = "repeated"
    """The third text in a row that says the same but for blanks and case: kept."""
    history_cut = "history_cut"
    """Turns were left out of the request, so that it fits the context; or its server did so without a word."""
    expert_failed = "expert_failed"
    """An expert was called that is unknown, or that did not take the turn."""

    @property
    def of_server(self) -> bool:
        """Whether the server (its parser, template or gateway) is at fault, and not the model."""
        return self in _OF_SERVER

    @property
    def rank(self) -> int:
        """Place in the order above: the server's faults come first."""
        return _RANKS[self]


_RANKS = {condition: rank for rank, condition in enumerate(Condition)}
_OF_SERVER = frozenset([*Condition][: _RANKS[Condition.usage_missing] + 1])


def why_unusable(conditions: Iterable[str], details: Mapping[Condition, str]) -> str:
    """What was wrong with a reply that brought neither text nor call, in a few words."""
    found = set(conditions)
    parts = []
    if Condition.only_thinking in found:
        parts.append("all of it was thinking")
    if Condition.markup_left in found:
        parts.append(f"a tool call stood in that ({details.get(Condition.markup_left, 'markup')})")
    if Condition.cut in found:
        parts.append("it was cut at its limit of tokens")
    if Condition.filtered in found:
        parts.append("it was filtered")
    if Condition.degenerate in found:
        parts.append("it was one cycle of characters")
    return ", ".join(parts) or "nothing came"
