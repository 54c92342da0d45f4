"""How long what is left of a run will take, from the expected lengths of its simulations and how long others took."""

from __future__ import annotations

from collections.abc import Mapping

SimulationKey = tuple[str, str, int]
"""Domain, task id, trial."""

_ALIKE = 1.0
_LEAST_SHARE = 0.1
"""Of its expected time that a simulation in flight still needs when it is overdue."""


class LengthsLeft:
    """Sums over the simulations that have not begun, and the pace of those that are over; each update is O(1).

    Args:
        lengths: expected length of each simulation that is left, in any unit; None: all alike.
    """

    def __init__(self, lengths: Mapping[SimulationKey, float] | None) -> None:
        self._lengths = lengths or {}
        self._not_begun = sum(self._lengths.values())
        self._not_ended = self._not_begun
        self._ended_s = 0.0
        self._ended_length = 0.0

    def began(self, key: SimulationKey) -> None:
        """It left the queue."""
        self._not_begun -= self._lengths.get(key, 0.0)

    def queued(self, key: SimulationKey) -> None:
        """It is in the queue again."""
        self._not_begun += self._lengths.get(key, 0.0)

    def ended(self, key: SimulationKey, duration_s: float) -> None:
        """It is over."""
        self._ended_s += duration_s
        self._ended_length += self._lengths.get(key, _ALIKE)
        self._not_ended -= self._lengths.get(key, 0.0)

    def of(self, key: SimulationKey) -> float:
        """The expected length of a simulation."""
        return self._lengths.get(key, _ALIKE)

    def mean_of(self, left: int) -> float | None:
        """The mean expected length of those that are not over, so many; None where lengths are not known."""
        return max(self._not_ended, 0.0) / left if self._lengths and left else None

    def seconds(self, ages_s: Mapping[SimulationKey, float], not_begun: int) -> float | None:
        """Until the last one is over, at as many at once as there are now; None before the first has ended.

        Args:
            ages_s: of those in flight, how long each has run.
            not_begun: how many have not begun, for where no lengths are known.
        """
        if not self._ended_length:
            return None
        pace = self._ended_s / self._ended_length
        left = [
            max(pace * self._lengths.get(key, _ALIKE) - age, _LEAST_SHARE * pace * self._lengths.get(key, _ALIKE))
            for key, age in ages_s.items()
        ]
        queued = self._not_begun if self._lengths else not_begun * _ALIKE
        work = pace * max(queued, 0.0) + sum(left)
        return max(work / max(len(ages_s), 1), max(left, default=0.0))
