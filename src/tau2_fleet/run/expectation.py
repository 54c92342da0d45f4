"""What a planned run will come to: calls, tokens, dollars, time, each with an 80% interval.

`forecast` prints it, and so does a paid run that no terminal watches, before anything starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from tau2_fleet.batch.schedule import Schedule, expected_length
from tau2_fleet.evaluation.forecasting import Forecast, around, forecast
from tau2_fleet.evaluation.makespan import forecast_wall_s
from tau2_fleet.evaluation.spending import Spending
from tau2_fleet.llm.prices import Price, PriceTable
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import Usage
from tau2_fleet.run.earlier_runs import EarlierRuns, EarlierSimulation
from tau2_fleet.run.plan import RunPlan

_PACE_DOUBT = 0.1
"""How far the pace of another run may be from an earlier one's: one standard deviation, as a share."""
_TYPICAL_DOUBT = 0.45
"""The same of anything that typical lengths say."""
_PER_SERVER = 32
_FIGURES = ("calls", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class _Typical:
    """What one role's model does in a conversation of a usual length."""

    calls: float
    input_tokens: float
    """Of one call, the mean over a conversation."""
    output_tokens: float
    seconds: float
    """Of one call, by a remote model or a fleet that is not overloaded."""


_TYPICAL = {
    "agent": _Typical(14, 8_000, 180, 4.0),
    "user": _Typical(8, 2_500, 80, 2.5),
    "judge": _Typical(0.2, 6_000, 300, 5.0),
}
_TYPICAL_EXPERT = _Typical(2, 9_000, 400, 20.0)
_TYPICAL_LENGTH = 9.0
"""Expected length (as the schedule counts it) of the task that these are of."""
_MANY_TURNS = ("telecom", "telecom-workflow")
"""Domains where the customer has tools, and conversations twice the turns."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a run will come to."""

    simulations: int
    """Those to come."""
    roles: dict[str, dict[str, Forecast]]
    """Role to calls, input_tokens, output_tokens."""
    cost_usd: Forecast | None
    """None: a price is not known."""
    wall_s: Forecast
    source: str
    """What it is from, for people."""
    unpriced: tuple[str, ...] = ()
    """Models of which no price is known."""
    notes: tuple[str, ...] = field(default=())


def expect(plan: RunPlan, schedule: Schedule, prices: PriceTable, earlier: EarlierRuns | None = None) -> Expectation:
    """What the simulations of a schedule will come to.

    Args:
        schedule: those to come.
        earlier: None: from typical lengths.
    """
    models = plan.models.by_name()
    known = {role: price_of(settings, prices) for role, settings in models.items()}
    unpriced = tuple(dict.fromkeys(str(models[role].model) for role, price in known.items() if price is None))
    wanted = dict(Counter(f"{job.key.domain}/{job.key.task_id}" for job in schedule.jobs))
    priced = {role: price for role, price in known.items() if price is not None}
    concurrency = min(_at_once(plan), max(len(schedule.jobs), 1))
    if earlier is None or not earlier.simulations:
        return _from_typical(schedule, wanted, models, priced, unpriced, concurrency)
    roles = {role: _role(earlier.simulations, role, wanted) for role in models}
    costs = (
        (one.task, sum(_cost(one.roles.get(role), price) for role, price in priced.items()))
        for one in earlier.simulations
    )
    cost = forecast(costs, wanted)
    seconds = forecast(((one.task, one.duration_s) for one in earlier.simulations), wanted)
    assert cost is not None
    assert seconds is not None
    at_once = min(earlier.at_once or concurrency, len(schedule.jobs) or 1)
    longest = max((one.duration_s for one in earlier.simulations), default=0.0) if schedule.jobs else 0.0
    wall = seconds.scaled(1 / at_once, _PACE_DOUBT)
    wall = wall if wall.expected >= longest else around(longest, _PACE_DOUBT)
    if earlier.slots is not None:
        times = ((one.task, one.duration_s) for one in earlier.simulations)
        played = forecast_wall_s(times, wanted, earlier.slots, _PACE_DOUBT, seconds.expected)
        wall = wall if played is None else played.plus(earlier.around_s)
    missing = [role for role in models if not any(role in one.roles for one in earlier.simulations)]
    notes = [f"the earlier runs say nothing of {', '.join(missing)}, which count as unused"] if missing else []
    other = [
        role for role, one in models.items() if role in earlier.simulated and one.provider is not Provider.simulated
    ]
    if other:
        notes.append(
            f"the earlier runs' {' and '.join(other)} had simulated models: real ones take far more turns, tokens and "
            "time; leave --from out, or give a small run of the planned models"
        )
    count = len(earlier.simulations)
    return Expectation(
        len(schedule.jobs),
        roles,
        None if unpriced else cost,
        wall,
        f"{count} simulations of earlier runs",
        unpriced,
        tuple(notes),
    )


def _at_once(plan: RunPlan) -> int:
    """Simulations in flight; where the program is to find out, what one server commonly holds."""
    config = plan.config
    return config.server.num * _PER_SERVER if config.auto_concurrency else config.most_in_flight


def _role(simulations: Sequence[EarlierSimulation], role: str, wanted: Mapping[str, int]) -> dict[str, Forecast]:
    found = {}
    for name in _FIGURES:
        total = forecast(((one.task, float(getattr(one.roles.get(role), name, 0))) for one in simulations), wanted)
        found[name] = total or Forecast(0.0, 0.0, 0.0)
    return found


def _cost(spent: Spending | None, price: Price) -> float:
    """At the planned model's price, whatever the earlier one cost."""
    if spent is None:
        return 0.0
    return price.cost_usd(Usage(spent.input_tokens, spent.output_tokens, spent.cached_tokens))


def price_of(settings: ModelSettings, prices: PriceTable) -> Price | None:
    """What a model costs: nothing on a fleet unless it has a price; None where that is not known."""
    if settings.price is not None or settings.provider.is_pool:
        return prices.price_of(settings)
    return prices.find(settings.model or "")


def _from_typical(
    schedule: Schedule,
    wanted: Mapping[str, int],
    models: Mapping[str, ModelSettings],
    priced: Mapping[str, Price],
    unpriced: tuple[str, ...],
    concurrency: int,
) -> Expectation:
    weights = 0.0
    for task, count in wanted.items():
        domain, _, task_id = task.partition("/")
        length = expected_length(schedule.tasks[domain, task_id]) / _TYPICAL_LENGTH
        weights += count * max(length, 0.4) * (2.0 if domain in _MANY_TURNS else 1.0)
    roles: dict[str, dict[str, Forecast]] = {}
    cost = seconds = 0.0
    for role in models:
        typical = _TYPICAL.get(role, _TYPICAL_EXPERT)
        calls = weights * typical.calls
        values = {
            "calls": calls,
            "input_tokens": calls * typical.input_tokens,
            "output_tokens": calls * typical.output_tokens,
        }
        roles[role] = {name: around(value, _TYPICAL_DOUBT) for name, value in values.items()}
        seconds += calls * typical.seconds
        if role in priced:
            usage = Usage(ceil(values["input_tokens"]), ceil(values["output_tokens"]))
            cost += priced[role].cost_usd(usage)
    return Expectation(
        len(schedule.jobs),
        roles,
        None if unpriced else around(cost, _TYPICAL_DOUBT),
        around(seconds / concurrency, 1.5 * _TYPICAL_DOUBT),
        "typical lengths (--from DIR takes those of an earlier run)",
        unpriced,
    )


def lines(expected: Expectation) -> list[str]:
    """For people, a line each."""
    found = [f"forecast for {expected.simulations} simulations, from {expected.source}; in brackets 80% intervals"]
    for role, figures in expected.roles.items():
        calls, read, written = (figures[name] for name in _FIGURES)
        found.append(f"  {role}: {_count(calls)} calls, {_count(read)} tokens in, {_count(written)} out")
    cost = expected.cost_usd
    if cost is None:
        found.append(f"  dollars: not known, as there is no price of {', '.join(expected.unpriced)}")
    else:
        found.append(f"  dollars: ${cost.expected:,.2f} [${cost.low:,.2f}, ${cost.high:,.2f}]")
    wall = expected.wall_s
    found.append(f"  time: {_time(wall.expected)} [{_time(wall.low)}, {_time(wall.high)}]")
    return [*found, *(f"  note: {note}" for note in expected.notes)]


def _count(one: Forecast) -> str:
    return f"{_short(one.expected)} [{_short(one.low)}, {_short(one.high)}]"


def _short(value: float) -> str:
    for least, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / size:,.1f} {letter}"
    return f"{value:,.0f}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
