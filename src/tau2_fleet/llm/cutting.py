"""Which turns of a history can be left out; used by `tau2_fleet.llm.context`.

A turn is one message with the results of its tool calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tau2_fleet.llm.types import ChatMessage


@dataclass(frozen=True, slots=True)
class Cut:
    """Which messages are left out: those of `[head, tail)` but for `kept`."""

    head: int
    tail: int
    kept: int | None = None

    def apply(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """What the cut leaves."""
        middle = [] if self.kept is None else [messages[self.kept]]
        return [*messages[: self.head], *middle, *messages[self.tail :]]

    def total(self, totals: Sequence[float]) -> float:
        """Length of what the cut leaves; `totals[i]` is the length of the first i messages."""
        kept = 0.0 if self.kept is None else totals[self.kept + 1] - totals[self.kept]
        return totals[self.head] + kept + totals[-1] - totals[self.tail]


def possible_cuts(messages: Sequence[ChatMessage]) -> Iterator[Cut]:
    """The cuts there are, the best first.

    What stays before the cut is everything up to the second user message, or only up to the first reply; what
    stays after it begins with a user message or, in a long chain of tool calls, with one of those
    calls, and then the user message that they answer is kept too.
    """
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    turns = [index for index, message in enumerate(messages) if message.role in ("user", "assistant")]
    if not turns:
        return
    first = users[0] + 1 if users else turns[0]
    heads = [users[1], first] if len(users) > 1 else [first]
    for head in heads:
        yield from (Cut(head, user) for user in users if user > head)
        last = users[-1] if users and users[-1] >= head else None
        later = turns[bisect_right(turns, head if last is None else last) :]
        yield from (Cut(head, turn, last) for turn in later)
