"""What conversations ask of one pool's memory: learned from replies as they come, and played forward over what is left.

A conversation's context at a pool grows by about the same with every call. From that growth, the number of calls that
conversations take and the share of their time that they spend at the pool follows how much of the KV cache so many
conversations at once will hold once they have grown; what all of them begin with is held once. `auto_concurrency.py`
asks this; the events of model calls feed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tau2_fleet.telemetry.events import LLMCall, Scope

Lengths = Mapping[tuple[str, str, int], float]
"""(domain, task id, trial) to the expected length of its conversation, in any unit."""

_LEARNED_CALLS = 30
"""Second and later calls after which the growth of contexts is known well enough."""
_BELIEF = 8.0
"""Conversations as which the beginning's guess of calls for each unit of length weighs."""
_GUESSED, _MOST_GUESSED = 1.2, 1.6
"""That guess where lengths are gold actions, and the most that is believed before as many conversations have ended as
are in flight;"""
_COUNTED, _MOST_COUNTED = 1.0, 1.25
"""the same where lengths are calls that earlier runs counted."""


@dataclass(slots=True)
class _PoolSession:
    """One conversation at the pool, in one role."""

    first_input: int
    calls: int = 1


@dataclass(slots=True)
class Demand:
    """Of one pool. Tokens and seconds."""

    counted: bool = False
    """Whether lengths are counted calls, not gold actions."""
    sessions: dict[tuple[Scope, str], _PoolSession] = field(default_factory=dict)
    begun_with: dict[tuple[str, str], int] = field(default_factory=dict)
    """(domain, role) to the shortest first prompt: what its conversations share."""
    busy_s: float = 0.0
    """Time of all requests together."""
    calls: int = 0
    _grown: float = 0.0
    _steps: int = 0
    _written: int = 0
    _ended_calls: float = 0.0
    _ended_length: float = 0.0
    _ended: int = 0

    def add(self, call: LLMCall) -> None:
        """A request of a simulation has been answered."""
        scope = call.scope
        if scope is None or call.error is not None:
            return
        self.calls += 1
        self.busy_s += max(0.0, call.duration_ms - call.queue_ms) / 1000
        self._written += call.output_tokens
        key = (scope, call.type)
        session = self.sessions.get(key)
        if session is None:
            self.sessions[key] = _PoolSession(call.input_tokens)
            kind = (scope.domain, call.type)
            self.begun_with[kind] = min(call.input_tokens, self.begun_with.get(kind, call.input_tokens))
            return
        self._grown += max(0, call.input_tokens - session.first_input)
        self._steps += session.calls
        session.calls += 1

    def end(self, scope: Scope, length: float) -> None:
        """A conversation of this expected length is over."""
        found = [key for key in ((scope, "llm_call"), (scope, "user_sim")) if key in self.sessions]
        if found:
            self._ended_calls += max(self.sessions[key].calls for key in found)
            self._ended_length += length
            self._ended += 1
        for key in found:
            del self.sessions[key]

    @property
    def known(self) -> bool:
        """Whether enough has been seen to foretell."""
        return self._steps >= _LEARNED_CALLS

    @property
    def growth(self) -> float:
        """Tokens by which a context grows from one call to the next."""
        return self._grown / self._steps if self._steps else 0.0

    @property
    def shared(self) -> float:
        """Tokens that every replica holds once for all conversations."""
        return float(sum(self.begun_with.values()))

    def calls_per_length(self, mean_length: float) -> float:
        """Calls of a conversation for each unit of its expected length.

        All calls over the lengths of what has ended: those of conversations still in flight count, too, as in the
        estimate of a rate from censored durations, since the short ones end first.
        """
        believed = _BELIEF * mean_length
        guess, most = (_COUNTED, _MOST_COUNTED) if self.counted else (_GUESSED, _MOST_GUESSED)
        under_way = sum(session.calls for session in self.sessions.values())
        found = (self._ended_calls + under_way + believed * guess) / (self._ended_length + believed)
        return found if self._ended > len(self.sessions) else min(found, most)

    @property
    def written(self) -> float:
        """Tokens of an answer, in the mean."""
        return self._written / self.calls if self.calls else 0.0


def most_at_once(lengths: Sequence[float], calls_per_length: float, room_calls: float, own_calls: float) -> int | None:
    """How many conversations can be in flight without outgrowing the room, now or later; None: all that are left.

    Args:
        lengths: expected lengths of what is left, the youngest part of it in flight.
        calls_per_length: calls of a conversation for each unit of length.
        room_calls: the room, in calls by which conversations have grown.
        own_calls: what each conversation holds beside, in the same unit.
    """
    calls = sorted(length * calls_per_length for length in lengths)
    if not calls:
        return None
    # All at once: those that are still there at a moment have grown by the calls up to it.
    count = len(calls)
    peak = max((count - place) * (value + own_calls) for place, value in enumerate(calls))
    if peak <= room_calls:
        return None
    # A few of many at a time: at any moment long ones are over-represented, and half done in the mean.
    mean = sum(calls) / count
    half = sum(value * value for value in calls) / count / mean / 2
    return max(1, int(room_calls / (half + own_calls)))
