"""What a run will have cost at its end, from its simulations that are over; the screen shows it."""

from __future__ import annotations

from math import log, sqrt

from tau2_fleet.evaluation.forecasting import Forecast, around

_ENOUGH = 5
"""Simulations before anything is said."""


class CostAhead:
    """Sums over what simulations have cost; each update is O(1)."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0
        self._squares = 0.0

    def ended(self, cost_usd: float) -> None:
        """A simulation is over."""
        self._count += 1
        self._sum += cost_usd
        self._squares += cost_usd**2

    def total(self, spent_usd: float, left: int) -> Forecast | None:
        """Dollars at the end, with an 80% interval; None where too little is known, or nothing costs or is left.

        Args:
            spent_usd: so far, by those in flight too.
            left: simulations that are not over.
        """
        if self._count < _ENOUGH or left <= 0 or self._sum <= 0:
            return None
        mean = self._sum / self._count
        variance = max(0.0, self._squares / self._count - mean**2) * self._count / (self._count - 1)
        spread = variance * (left + left**2 / self._count)
        ahead = around(mean * left, sqrt(log(1 + spread / (mean * left) ** 2))).plus(self._sum)
        return Forecast(max(ahead.expected, spent_usd), max(ahead.low, spent_usd), max(ahead.high, spent_usd))
