"""When a reward is a success: one threshold for statistics, displays, tables and reports."""

from __future__ import annotations

TOLERANCE = 1e-6
"""The benchmark's: a reward this near to 1 is a success."""


def is_success(reward: float) -> bool:
    """Whether a reward, or a part of one, counts as 1."""
    return abs(reward - 1.0) <= TOLERANCE
