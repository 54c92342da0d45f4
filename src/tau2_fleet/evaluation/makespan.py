"""How long simulations take together when so many are in flight at once, the longest begun first. Pure functions.

`forecast` asks, for runs of which earlier ones say how long each task takes.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, pstdev, quantiles, variance

from tau2_fleet.evaluation.forecasting import WITHIN, Forecast

_MOST_ROUNDS, _LEAST_ROUNDS = 200, 40
_DRAWS = 100_000
"""Simulations drawn in all rounds together, about: a second at most."""
_SEED = 20_240_614
_LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class _Durations:
    """Logarithms of the seconds that a domain's simulations take."""

    mean: float
    between: float
    """Variance of tasks' means."""
    within: float
    shapes: Sequence[float]
    """How far simulations lie from the mean, in standard deviations: what chance within a task looks like."""

    def of_task(self, seen: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation of what is known of a task's mean: drawn to the domain's as far as few trials say
        little (empirical Bayes; Efron and Morris 1975, JASA 70:311)."""
        if not seen:
            return self.mean, sqrt(self.between)
        chance = self.within / len(seen)
        weight = self.between / (self.between + chance) if self.between + chance > 0 else 1.0
        return self.mean + weight * (fmean(seen) - self.mean), sqrt(self.between * (1 - weight))


@dataclass(frozen=True, slots=True)
class _Task:
    """What a task's simulations to come may take, in logarithms of seconds."""

    mean: float
    doubt: float
    within: float
    shapes: Sequence[float]
    count: int

    def draw(self, luck: random.Random) -> float:
        """Seconds of one of them."""
        return exp(luck.gauss(self.mean, self.doubt) + self.within * luck.choice(self.shapes))


def forecast_wall_s(
    samples: Iterable[tuple[str, float]], wanted: Mapping[str, int], at_once: int, doubt: float, expected_s: float
) -> Forecast | None:
    """Seconds until all are over, from seeded rounds in which each simulation takes as long as one like it may.

    Args:
        samples: task (`domain/id`) and seconds of simulations that are over.
        wanted: task to the number of its simulations to come.
        at_once: simulations in flight at most.
        doubt: how far the pace may be off, one standard deviation as a share.
        expected_s: what all are expected to take one after the other.

    Returns:
        None without any sample, or nothing to come.
    """
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for task, seconds in samples:
        seen[task].append(log(max(seconds, _LEAST_S)))
    if not seen or not wanted:
        return None
    everything = _lengths(list(seen.values()))
    domains: defaultdict[str, list[list[float]]] = defaultdict(list)
    for task, values in seen.items():
        domains[_domain(task)].append(values)
    lengths = {name: _lengths(tasks) if len(tasks) > 1 else everything for name, tasks in domains.items()}
    known = []
    for task, count in wanted.items():
        own = lengths.get(_domain(task), everything)
        known.append(_Task(*own.of_task(seen.get(task, [])), sqrt(own.within), own.shapes, count))
    known.sort(key=lambda one: -one.mean)
    luck = random.Random(_SEED)
    # the mean of logarithms says little of a sum where lengths are not lognormal: the sums are made to agree
    drawn = fmean(sum(one.draw(luck) for one in known for _ in range(one.count)) for _ in range(_LEAST_ROUNDS))
    pace = expected_s / drawn
    rounds = max(_LEAST_ROUNDS, min(_MOST_ROUNDS, _DRAWS // sum(wanted.values())))
    walls = sorted(pace * _round(known, at_once, luck) * exp(luck.gauss(0, doubt)) for _ in range(rounds))
    tenths = quantiles(walls, n=10)
    return Forecast(tenths[4], tenths[0], tenths[8])


def _round(known: Sequence[_Task], at_once: int, luck: random.Random) -> float:
    """One way that it may go: trials of a task apart, the longest first."""
    ends = [0.0] * max(1, at_once)
    for trial in range(max(one.count for one in known)):
        for one in known:
            if trial < one.count:
                heapq.heapreplace(ends, ends[0] + one.draw(luck))
    return max(ends)


def _lengths(tasks: Sequence[Sequence[float]]) -> _Durations:
    means = [fmean(values) for values in tasks]
    observed = variance(means) if len(means) > 1 else 0.25
    every = [value for values in tasks for value in values]
    middle, scale = fmean(every), pstdev(every) or 1.0
    shapes = [(value - middle) / scale for value in every]
    repeated = [(variance(values), len(values) - 1) for values in tasks if len(values) > 1]
    freedom = sum(count for _, count in repeated)
    if not freedom:
        return _Durations(fmean(means), (1 - WITHIN) * observed, WITHIN * observed, shapes)
    within = sum(value * count for value, count in repeated) / freedom
    rest = within * fmean(1 / len(values) for values in tasks)
    return _Durations(fmean(means), max(0.0, observed - rest), within, shapes)


def _domain(task: str) -> str:
    return task.partition("/")[0]
