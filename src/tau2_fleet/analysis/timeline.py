"""A run along its time axis: simulations in flight, requests, tokens per second, KV use; `plots` draws it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

BUCKETS = 240


@dataclass(slots=True)
class Track:
    """An amount per stretch of time, gathered interval by interval in constant time each."""

    edges: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    """What intervals that begin or end in a stretch leave there."""
    steps: list[float] = field(default_factory=lambda: [0.0] * (BUCKETS + 1))
    """Changes of the running sum, for the stretches that intervals cover whole."""

    def add(self, begin: float, end: float, amount: float) -> None:
        """Spread an amount evenly over an interval, given in stretches since the start."""
        begin, end = min(max(begin, 0.0), BUCKETS), min(max(end, 0.0), BUCKETS)
        first, last = min(int(begin), BUCKETS - 1), min(int(end), BUCKETS - 1)
        if first == last:
            self.edges[first] += amount
            return
        rate = amount / (end - begin)
        self.edges[first] += rate * (first + 1 - begin)
        self.edges[last] += rate * (end - last)
        self.steps[first + 1] += rate
        self.steps[last] -= rate

    def values(self) -> list[float]:
        """The amount of each stretch."""
        whole = itertools.accumulate(self.steps)
        return [max(edge + inside, 0.0) for edge, inside in zip(self.edges, whole, strict=False)]


@dataclass(slots=True)
class Timeline:
    """Counts in equal stretches of time from the first to the last event, gathered event by event."""

    start_s: float
    """Epoch second of the first event."""
    width_s: float
    """Of a stretch."""
    simulations: Track = field(default_factory=Track)
    """Mean number at once, like `calls`."""
    calls: Track = field(default_factory=Track)
    token_rate: Track = field(default_factory=Track)
    """Output tokens per second."""
    kv_use: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By replica: (seconds since the start, 0 to 1)."""
    limits: list[tuple[float, int]] = field(default_factory=list)
    """What `max_concurrency=auto` decided: (seconds since the start, simulations at once at most)."""

    @classmethod
    def over(cls, start_s: float, end_s: float) -> Timeline:
        """An empty timeline from the first event to the last."""
        return cls(start_s, max(end_s - start_s, 1e-3) / BUCKETS)

    def simulation(self, end_s: float, duration_s: float) -> None:
        """A simulation that ended at `end_s`."""
        self._add(self.simulations, end_s, duration_s, duration_s)

    def call(self, end_s: float, duration_s: float, tokens: int) -> None:
        """A model call that ended at `end_s`; its output tokens are spread evenly over it."""
        self._add(self.calls, end_s, duration_s, duration_s)
        self._add(self.token_rate, end_s, duration_s, tokens)

    def sample(self, replica: str, time_s: float, kv_use: float) -> None:
        """A reading of a replica's KV use."""
        self.kv_use.setdefault(replica, []).append((time_s - self.start_s, kv_use))

    def limit(self, time_s: float, limit: int) -> None:
        """Another number of simulations may be in flight from then on."""
        self.limits.append((time_s - self.start_s, limit))

    def _add(self, track: Track, end_s: float, duration_s: float, amount: float) -> None:
        end = (end_s - self.start_s) / self.width_s
        track.add(end - duration_s / self.width_s, end, amount / self.width_s)

    def times_s(self) -> list[float]:
        """The middle of each stretch, in seconds since the start."""
        return [(index + 0.5) * self.width_s for index in range(BUCKETS)]
