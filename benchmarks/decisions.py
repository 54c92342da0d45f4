"""Whether decisions can be trusted: tests of sides that are alike, intervals, planned power, forecasts; all resampled.

Tasks differ in difficulty (rates from beta distributions), and are drawn anew in each round. Figures are in percent,
or points off what should be; the seeds are fixed, so that a full run gives the same table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy

from benchmarks.rows import Row
from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.forecasting import forecast
from tau2_fleet.evaluation.paired import TaskPair
from tau2_fleet.evaluation.planning import Noise

Random = numpy.random.Generator


@dataclass(frozen=True, slots=True)
class Design:
    """Two sides of some tasks."""

    tasks: int
    trials: tuple[int, int]
    shape: tuple[float, float]
    """Of the beta distribution of the tasks' rates."""
    effect: float = 0.0
    spread: float = 0.0
    """How far a task's own effect lies from that, up or down."""
    degenerate: bool = False
    """Whether so little can differ that the test may reject less than it could."""

    @property
    def name(self) -> str:
        trials = "/".join(map(str, dict.fromkeys(self.trials)))
        apart = f", {100 * self.effect:+.0f} ± {100 * self.spread:.0f} pp" if self.effect or self.spread else ""
        return f"{self.tasks} tasks x {trials}{apart}, beta{self.shape}"

    def rates(self, random: Random) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The tasks' true rates on either side; there is room for all effects."""
        room = abs(self.effect) + self.spread
        middle = room / 2 + (1 - room) * random.beta(*self.shape, self.tasks)
        half = (self.effect + self.spread * random.choice([-1, 1], self.tasks)) / 2
        return middle - half, middle + half

    def draw(self, random: Random, rates: tuple[numpy.ndarray, numpy.ndarray]) -> list[TaskPair]:
        """One pair of runs, of two domains."""
        passed = [numpy.asarray(random.binomial(k, of)).tolist() for k, of in zip(self.trials, rates, strict=True)]
        return [
            TaskPair(f"{'ab'[task % 2]}/{task}", (first, self.trials[0]), (second, self.trials[1]))
            for task, (first, second) in enumerate(zip(*passed, strict=True))
        ]

    def rounds(self, wanted: int) -> int:
        """Unequal trials are dealt anew 20,000 times in each round: a fifth of the rounds has to do."""
        return wanted if self.trials[0] == self.trials[1] else wanted // 5


_ALIKE = (
    Design(114, (4, 4), (1.0, 0.6)),
    Design(278, (1, 1), (1.0, 0.6)),
    Design(50, (1, 1), (1.0, 0.6)),
    Design(50, (2, 5), (0.5, 0.5)),
    Design(278, (1, 4), (20.0, 1.0)),
    Design(20, (4, 4), (0.5, 0.5)),
    Design(9, (1, 1), (2.0, 1.0), degenerate=True),
    Design(40, (4, 4), (60.0, 1.0), degenerate=True),
)
_COVERED = (
    Design(114, (4, 4), (1.0, 0.6), 0.05, 0.1),
    Design(50, (4, 4), (2.0, 1.0), 0.0, 0.1),
    Design(50, (1, 1), (2.0, 1.0), 0.1, 0.05),
    Design(20, (4, 4), (2.0, 1.0), 0.1, 0.1),
    Design(278, (2, 4), (1.0, 0.6), 0.03, 0.1),
)
_POWERED = (
    Design(50, (1, 1), (2.0, 2.0), 0.2),
    Design(20, (1, 1), (2.0, 2.0), 0.35),
    Design(9, (1, 1), (2.0, 2.0), 0.5),
    Design(278, (1, 1), (1.0, 0.6), 0.1),
    Design(9, (4, 4), (2.0, 2.0), 0.3),
    Design(20, (4, 4), (2.0, 2.0), 0.2),
    Design(50, (2, 2), (2.0, 2.0), 0.15, 0.1),
    Design(114, (4, 4), (1.0, 0.6), 0.06),
    Design(278, (2, 2), (1.0, 0.6), 0.06, 0.1),
)


def rows(*, quick: bool) -> list[Row]:
    """All studies: 1,000 rounds of each design, 200 runs for each forecast."""
    return [*_alike(100 if quick else 1000), *_covered(100 if quick else 1000), *_powered(100 if quick else 1000),
            *_forecasts(50 if quick else 200)]  # fmt: skip


def _alike(rounds: int) -> Iterator[Row]:
    for design in _ALIKE:
        random, count = numpy.random.default_rng(11), design.rounds(rounds)
        rejected = 0
        for _ in range(count):
            rates = design.rates(random)
            rejected += paired.test_difference(design.draw(random, rates)).p <= 0.05
        share = 100 * rejected / count
        name = f"decisions/alike sides called different/{design.name}"
        yield Row(
            name, share, None, "%", limit=7.0, detail={"rounds": count, "at_least": 0 if design.degenerate else 3}
        )


def _covered(rounds: int) -> Iterator[Row]:
    for design in _COVERED:
        random, count = numpy.random.default_rng(12), design.rounds(rounds) if min(design.trials) == 1 else rounds
        held, held_these = 0, 0
        for _ in range(count):
            rates = design.rates(random)
            pairs = design.draw(random, rates)
            held += _holds(paired.of_tasks_like_these(pairs), design.effect)
            held_these += _holds(paired.of_these_very_tasks(pairs), float((rates[1] - rates[0]).mean()))
        yield _off(f"decisions/interval on tasks like these/{design.name}", 100 * held / count, 94.5, 2.5)
        if min(design.trials) > 1:
            # at least what it says: it is wider where tasks were always or never passed
            yield _off(f"decisions/interval on these very tasks/{design.name}", 100 * held_these / count, 94.5, 2.5)


def _holds(spread: paired.Spread | None, truth: float) -> bool:
    if spread is None:
        return False
    interval = spread.interval()
    return interval.low <= truth <= interval.high


def _powered(rounds: int) -> Iterator[Row]:
    for design in _POWERED:
        random = numpy.random.default_rng(13)
        found = 0
        moments = numpy.zeros(3)
        for _ in range(rounds):
            first, second = design.rates(random)
            found += paired.test_difference(design.draw(random, (first, second))).p <= 0.05
            moments += [(first * (1 - first)).mean(), (second * (1 - second)).mean(), (second - first).var()]
        before, after, effects = (moments / rounds).tolist()
        planned = Noise(effects, before, after).power(design.effect, design.tasks, design.trials[0])
        yield _off(f"decisions/power as planned/{design.name}", 100 * found / rounds, 100 * planned, 4.0)


def _off(name: str, percent: float, wanted: float, limit: float) -> Row:
    """How far a figure is from where it should be."""
    return Row(name, abs(percent - wanted), None, "pp off", limit=limit, detail={"percent": percent, "wanted": wanted})


def _forecasts(rounds: int) -> Iterator[Row]:
    for tasks, before, after, within, new in (
        (114, 1, 1, 0.5, False),
        (50, 1, 4, 0.7, False),
        (278, 1, 1, 0.85, False),
        (50, 1, 4, 0.4, False),
        (50, 4, 1, 0.5, False),
        (30, 2, 2, 0.5, True),
        (20, 1, 4, 0.7, True),
    ):
        held, off = forecast_holds(tasks, before, after, within, new, rounds)
        name = (
            f"{tasks} {'other ' if new else ''}tasks, {before} trials before, {after} after, {within:.0%} within tasks"
        )
        yield _off(f"decisions/forecast of tokens/{name}", held, 80.0, 10.0)
        yield Row(f"decisions/forecast of tokens, median off/{name}", off, None, "%", limit=33.0)


def forecast_holds(tasks: int, before: int, after: int, within: float, new: bool, rounds: int) -> tuple[float, float]:
    """In percent: how often the 80% interval holds the total, and how far its middle is from that in the median.

    Args:
        within: the part of the variance that is within tasks.
        new: whether other tasks of the same domains are forecast than were seen.
    """
    random = numpy.random.default_rng(14)
    spread = 0.6
    held, off = 0, []
    for _ in range(rounds):
        levels = numpy.array([1.0, 2.0, 0.6])[numpy.arange(tasks) % 3]
        seen, coming = (levels * random.lognormal(3, spread * (1 - within) ** 0.5, tasks) for _ in range(2))
        coming = coming if new else seen
        names = [f"{'abc'[task % 3]}/{task}" for task in range(tasks)]
        deviation = spread * within**0.5
        samples = [
            (name, float(mean * random.lognormal(0, deviation)))
            for name, mean in zip(names, seen, strict=True)
            for _ in range(before)
        ]
        total = float((coming[:, None] * random.lognormal(0, deviation, (tasks, after))).sum())
        found = forecast(samples, {f"{name}x" if new else name: after for name in names})
        assert found is not None
        held += found.low <= total <= found.high
        off.append(abs(found.expected / total - 1))
    return 100 * held / rounds, 100 * float(numpy.median(off))
