"""When and why a run ends before its schedule is through; `runner.py` ends it, `run/` tells people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


class RunEnd(StrEnum):
    """Why a run ended before its schedule was through."""

    INTERRUPTED = "interrupted"
    """Ctrl-C or SIGTERM."""
    BUDGET = "budget"
    """`limits.max_cost_usd` was reached."""
    TIMEOUT = "timeout"
    """`limits.run_timeout_s` was over."""
    SPOILT = "spoilt"
    """Servers spoilt more of the replies than `replies.stop_at`."""
    DRAINED = "drained"
    """`ctl drain`: what was in flight came to its end, and nothing else began."""
    FATAL = "fatal"
    """A model refuses every call for the same reason."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends by itself."""

    run_timeout_s: float | None = None
    grace_s: float = 30.0
    """How long simulations in flight may go on once the run is told to stop."""
    began_s: float = field(default_factory=time.monotonic)
    """When the run began, on the event loop's clock: the start of its servers is part of it."""

    @property
    def deadline_s(self) -> float | None:
        return None if self.run_timeout_s is None else self.began_s + self.run_timeout_s

    @property
    def out_of_time(self) -> str:
        """What to say of a run that came to its deadline."""
        return f"longer than limits.run_timeout_s={self.run_timeout_s:g}"
