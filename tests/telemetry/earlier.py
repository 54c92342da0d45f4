"""What an earlier attempt left, for tests of the running numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Earlier:
    """A record that an earlier attempt left."""

    key: tuple[str, str, int]
    reward: float
    termination_reason: str
    cost_usd: float = 0.5
    input_tokens: int = 1000
    output_tokens: int = 10
