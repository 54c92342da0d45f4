"""How long to wait before a failed request is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter (half of each step is chance), and how often at most."""

    attempts: int = 10
    """Sendings of one request, the first included."""
    first_s: float = 0.5
    longest_s: float = 60.0

    def wait_s(self, attempt: int, retry_after_s: float | None, random: Callable[[], float]) -> float:
        """Seconds to wait after the failed `attempt` (from 1); never less than the server asked for."""
        step = min(self.longest_s, self.first_s * 2.0 ** (attempt - 1))
        return max(step * (0.5 + 0.5 * random()), retry_after_s or 0.0)
