"""One server of a run in numbers, as its samples and the calls to it tell; `run_counters.py` keeps one for each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

RATE_WINDOW_S = 15.0
"""Tokens per second are over this long."""


@dataclass(slots=True)
class ReplicaCounters:
    """One server as last seen."""

    state: str = "ready"
    running: float | None = None
    waiting: float | None = None
    kv_use: float | None = None
    calls: int = 0
    output_tokens: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    """(monotonic second, output tokens) of calls within `RATE_WINDOW_S`; calls of one second are one entry."""

    def add(self, now_s: float, tokens: int) -> None:
        self.calls += 1
        self.output_tokens += tokens
        second = float(int(now_s))
        if self.recent and self.recent[-1][0] == second:
            self.recent[-1] = (second, self.recent[-1][1] + tokens)
        else:
            self.recent.append((second, tokens))

    def tokens_per_s(self, now_s: float, since_s: float) -> float:
        """Output tokens per second of the last `RATE_WINDOW_S`, or since the run began."""
        while self.recent and self.recent[0][0] < now_s - RATE_WINDOW_S:
            self.recent.popleft()
        window = min(RATE_WINDOW_S, max(now_s - since_s, 1.0))
        return sum(tokens for _, tokens in list(self.recent)) / window
