"""Durations of one kind of thing with their tokens and cost, and the row of figures that is made of them."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from tau2_fleet.telemetry.quantiles import quantile


@dataclass(slots=True)
class Series:
    """What is gathered of one type, model, function, task or replica."""

    durations_ms: array[float] = field(default_factory=lambda: array("d"))
    served_ms: float = 0.0
    """Of model calls: time without our own queue and new connections."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    errors: int = 0

    @property
    def total_ms(self) -> float:
        return math.fsum(self.durations_ms)

    def add_calls(self, calls: Series) -> None:
        """Take over what model calls brought, all but their durations: what contains them has its own."""
        self.served_ms += calls.served_ms
        self.input_tokens += calls.input_tokens
        self.output_tokens += calls.output_tokens
        self.cached_tokens += calls.cached_tokens
        self.cost_usd += calls.cost_usd
        self.errors += calls.errors


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """The figures of one series."""

    name: str
    count: int
    mean_ms: float
    sd_ms: float
    """Of the sample (n - 1); 0 for a single value."""
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    total_s: float
    share: float | None
    """Of the summed time of all simulations, which run side by side; None for what contains other rows."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    tokens_per_s: float | None
    """Output tokens per second of the calls' own time, queueing left out; None without tokens."""
    cost_usd: float
    errors: int


def row(name: str, series: Series, simulated_ms: float | None) -> SeriesRow:
    """The figures of a series.

    Args:
        simulated_ms: summed time of all simulations, for the share; None: no share.
    """
    ordered = sorted(series.durations_ms)
    has_rate = series.output_tokens > 0 and series.served_ms > 0
    total_ms = series.total_ms
    count = len(ordered)
    mean = total_ms / count
    spread = math.fsum((value - mean) ** 2 for value in ordered)
    return SeriesRow(
        name=name,
        count=count,
        mean_ms=mean,
        sd_ms=math.sqrt(spread / (count - 1)) if count > 1 else 0.0,
        p50_ms=quantile(ordered, 0.50),
        p90_ms=quantile(ordered, 0.90),
        p95_ms=quantile(ordered, 0.95),
        p99_ms=quantile(ordered, 0.99),
        total_s=total_ms / 1000,
        share=total_ms / simulated_ms if simulated_ms else None,
        input_tokens=series.input_tokens,
        output_tokens=series.output_tokens,
        cached_tokens=series.cached_tokens,
        tokens_per_s=series.output_tokens / series.served_ms * 1000 if has_rate else None,
        cost_usd=series.cost_usd,
        errors=series.errors,
    )
