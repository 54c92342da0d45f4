"""What a run will have cost at its end, from its simulations that are over; the screen shows it."""

from __future__ import annotations

from math import log, sqrt

from tau2_fleet.evaluation.forecasting import Forecast, around, quantile_of_t

_ENOUGH = 5
"""Simulations before anything is said."""


class CostAhead:
    """Sums over what simulations have cost, and how long they were expected to be; each update is O(1).

    What is left is not like what is over where the longest begin first, or the shortest end first: cost is taken to be
    a straight line in expected length, by least squares.
    """

    def __init__(self) -> None:
        self._count = 0
        self._costs = 0.0
        self._lengths = 0.0
        self._costs_squared = 0.0
        self._lengths_squared = 0.0
        self._products = 0.0

    def ended(self, cost_usd: float, length: float = 1.0) -> None:
        """A simulation is over; `length` is what was expected of it, in any unit."""
        self._count += 1
        self._costs += cost_usd
        self._lengths += length
        self._costs_squared += cost_usd**2
        self._lengths_squared += length**2
        self._products += cost_usd * length

    def total(self, spent_usd: float, left: int, length: float | None = None) -> Forecast | None:
        """Dollars at the end, with an 80% interval; None where too little is known, or nothing costs or is left.

        Args:
            spent_usd: so far, by those in flight too.
            left: simulations that are not over.
            length: of those, the mean; None: as of those that are over.
        """
        count = self._count
        if count < _ENOUGH or left <= 0 or self._costs <= 0:
            return None
        mean, mean_length = self._costs / count, self._lengths / count
        squares = max(0.0, self._costs_squared - count * mean**2)
        squares_of_length = self._lengths_squared - count * mean_length**2
        slope = apart = 0.0
        freedom = count - 1
        if length is not None and squares_of_length > 1e-9 * self._lengths_squared:
            slope = (self._products - count * mean * mean_length) / squares_of_length
            squares = max(0.0, squares - slope**2 * squares_of_length)
            apart = (length - mean_length) ** 2 / squares_of_length
            freedom -= 1
        each = mean if length is None else mean + slope * (length - mean_length)
        each = max(each, 0.1 * mean)
        spread = squares / freedom * (left + left**2 * (1 / count + apart))
        deviation = sqrt(log(1 + spread / (each * left) ** 2))
        ahead = around(each * left, deviation, quantile_of_t(freedom)).plus(self._costs)
        return Forecast(max(ahead.expected, spent_usd), max(ahead.low, spent_usd), max(ahead.high, spent_usd))
