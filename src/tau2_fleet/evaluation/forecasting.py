"""What many simulations will come to together, from some that are over: totals with 80% intervals. Pure functions.

`forecast` asks before a run, the screen during it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, variance

CONFIDENCE = 0.8
WITHIN = 0.66
"""The part of the variance between simulations of a domain that is within tasks, where no task was tried twice: with it
the interval holds 70 to 90% of totals for true parts from about 0.35 to 0.85 (`benchmarks/decisions.py`)."""
_ELSEWHERE = 0.3
"""How far, as a share of the mean, a domain may be from those that were seen, when none of its simulations was."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A total that is expected, between two that it is in with 80%."""

    expected: float
    low: float
    high: float

    def plus(self, known: float) -> Forecast:
        """With what is known already."""
        return Forecast(self.expected + known, self.low + known, self.high + known)

    def scaled(self, factor: float, doubt: float = 0.0) -> Forecast:
        """Times a factor that is itself only known to a share of `doubt` (one standard deviation)."""
        half = log(self.high / self.expected) / _Z if self.expected > 0 and self.high > self.expected else 0.0
        return around(self.expected * factor, sqrt(half**2 + doubt**2))


_Z = 1.2815515655446004
"""The 90% quantile of the normal distribution."""


def around(expected: float, deviation: float, quantile: float = _Z) -> Forecast:
    """A lognormal total.

    Args:
        deviation: standard deviation of its logarithm.
        quantile: of the standardised error, for 80%.
    """
    if expected <= 0:
        return Forecast(0.0, 0.0, 0.0)
    half = quantile * deviation
    return Forecast(expected, expected * exp(-half), expected * exp(half))


@dataclass(frozen=True, slots=True)
class _DomainSpread:
    """What the samples of a domain say."""

    tasks: Mapping[str, Sequence[float]]
    mean: float
    """Over tasks."""
    within: float
    """Variance of one trial around its task's mean."""
    between: float
    """Variance of tasks' true means."""
    doubt: float = 0.0
    """Variance of the domain's mean beyond what its tasks say."""


def forecast(samples: Iterable[tuple[str, float]], wanted: Mapping[str, int]) -> Forecast | None:
    """The total of a figure over simulations that are to come.

    A task that was seen is expected to come out as before, with the variance within tasks on both sides; another one as
    the tasks of its domain do. All parts of the variance add up, and the total counts as lognormal.

    Args:
        samples: task (`domain/id`) and figure of simulations that are over.
        wanted: task to the number of its simulations to come.

    Returns:
        None without any sample.
    """
    seen: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, value in samples:
        seen[task.partition("/")[0]][task].append(value)
    if not seen:
        return None
    domains = {name: _domain(tasks) for name, tasks in seen.items()}
    everything = _domain({task: values for tasks in seen.values() for task, values in tasks.items()})
    elsewhere = _DomainSpread(
        {}, everything.mean, everything.within, everything.between, (_ELSEWHERE * everything.mean) ** 2
    )
    expected = 0.0
    spread: defaultdict[str, float] = defaultdict(float)
    unseen: defaultdict[str, int] = defaultdict(int)
    for task, count in wanted.items():
        name = task.partition("/")[0]
        domain = domains.get(name, elsewhere)
        before = domain.tasks.get(task)
        if before is None:
            unseen[name] += count
            expected += count * domain.mean
            spread[name] += count * domain.within + count**2 * domain.between
        else:
            expected += count * fmean(before)
            spread[name] += count * domain.within + count**2 * domain.within / len(before)
    for name, count in unseen.items():
        domain = domains.get(name, elsewhere)
        of_mean = (domain.within + domain.between) / max(len(domain.tasks), 1) if domain.tasks else 0.0
        spread[name] += count**2 * (of_mean + domain.doubt)
    if expected <= 0:
        return Forecast(0.0, 0.0, 0.0)
    freedom = {name: max(len(domains.get(name, everything).tasks) - 1, 1) for name in spread}
    whole = sum(spread.values())
    # Welch and Satterthwaite: a domain with few tasks counts as far as the doubt is its own
    shared = sum(part**2 / freedom[name] for name, part in spread.items())
    return around(expected, sqrt(log(1 + whole / expected**2)), quantile_of_t(whole**2 / shared if shared else 1.0))


def _domain(tasks: Mapping[str, Sequence[float]]) -> _DomainSpread:
    means = [fmean(values) for values in tasks.values()]
    mean = fmean(means)
    repeated = [(variance(values), len(values) - 1) for values in tasks.values() if len(values) > 1]
    freedom = sum(count for _, count in repeated)
    observed = variance(means) if len(means) > 1 else (0.5 * mean) ** 2
    if freedom:
        within = sum(value * count for value, count in repeated) / freedom
        rest = within * fmean(1 / len(values) for values in tasks.values())
        return _DomainSpread(tasks, mean, within, max(0.0, observed - rest))
    return _DomainSpread(tasks, mean, WITHIN * observed, (1 - WITHIN) * observed)


def quantile_of_t(freedom: float) -> float:
    """The 90% quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5), to a thousandth from 3 degrees on."""
    if freedom < 1.5:
        return 3.0777
    if freedom < 2.5:
        return 1.8856
    z, n = _Z, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4
