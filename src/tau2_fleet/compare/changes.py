"""What changed between two sides beside the score: causes of lost reward, tool calls, steps, tokens, cost, time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tau2_fleet.analysis.causes import Cause
from tau2_fleet.compare.sides import ComparedSide
from tau2_fleet.compare.sources import SimulationOutcome
from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.paired import Interval
from tau2_fleet.evaluation.permutation import sign_flip

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of a simulation, its mean over tasks on either side."""

    name: str
    """As in `simulations.csv`; of a cause, its name there."""
    words: str
    """For people."""
    baseline: float
    candidate: float
    interval: Interval | None
    """Of the difference, 95%, for tasks like these."""
    p: float
    """Of the sign-flip permutation test, unadjusted."""

    @property
    def difference(self) -> float:
        return self.candidate - self.baseline


def _tool_calls(one: SimulationOutcome) -> float:
    return one.tool_calls


def _steps(one: SimulationOutcome) -> float:
    return one.steps


def _input_tokens(one: SimulationOutcome) -> float | None:
    return one.input_tokens


def _output_tokens(one: SimulationOutcome) -> float | None:
    return one.output_tokens


def _cost(one: SimulationOutcome) -> float | None:
    return one.cost_usd


def _duration(one: SimulationOutcome) -> float:
    return one.duration_s


_FIGURES: tuple[tuple[str, str, Callable[[SimulationOutcome], float | None]], ...] = (
    ("tool_calls", "tool calls", _tool_calls),
    ("steps", "steps", _steps),
    ("input_tokens", "tokens in", _input_tokens),
    ("output_tokens", "tokens out", _output_tokens),
    ("cost_usd", "cost (USD)", _cost),
    ("duration_s", "time (s)", _duration),
)


def figures_side_by_side(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> Iterator[Change]:
    """The mean of each figure over tasks; those that are nothing on both sides, or not known, are left out."""
    for name, words, of in _FIGURES:
        if any(of(one) is None for side in (baseline, candidate) for task in tasks for one in side.trials[task]):
            continue
        change = _change(name, words, of, baseline, candidate, tasks)
        if change.baseline or change.candidate:
            yield change


def causes_side_by_side(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> Iterator[Change]:
    """The share of simulations that lost reward by each primary cause, in their order; absent ones are left out."""
    present = {one.cause for side in (baseline, candidate) for task in tasks for one in side.trials[task]}
    for cause in Cause:
        if cause.value in present:
            yield _change(cause.value, cause.words, _is(cause.value), baseline, candidate, tasks, most=1.0)


def _is(cause: str) -> Callable[[SimulationOutcome], float]:
    return lambda one: float(one.cause == cause)


def _change(
    name: str,
    words: str,
    of: Callable[[SimulationOutcome], float | None],
    baseline: ComparedSide,
    candidate: ComparedSide,
    tasks: Sequence[str],
    most: float = float("inf"),
) -> Change:
    first, second = (_means(side, tasks, of) for side in (baseline, candidate))
    spread = paired.spread(second - first, [task.partition("/")[0] for task in tasks], most=most)
    return Change(
        name,
        words,
        float(first.mean()),
        float(second.mean()),
        None if spread is None else spread.interval(),
        sign_flip(second - first),
    )


def _means(
    side: ComparedSide, tasks: Sequence[str], of: Callable[[SimulationOutcome], float | None]
) -> NDArray[numpy.float64]:
    import numpy

    return numpy.array([sum(of(one) or 0.0 for one in side.trials[task]) / len(side.trials[task]) for task in tasks])
