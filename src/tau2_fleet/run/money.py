"""What a run may spend: prices that must be known, what a sweep's other jobs have spent, room for what is in flight."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.display.console import err, tell
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.llm.allowance import OUT_OF_MONEY, Allowance
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.record.line import Record
from tau2_fleet.record.store import Store
from tau2_fleet.run.expectation import Expectation, expect, lines, price_of
from tau2_fleet.run.ledger import Ledger
from tau2_fleet.run.plan import RunPlan
from tau2_fleet.simulation.simulate import SimulationJob

_LOOK_S = 1.0
"""How often the accounts of other jobs are looked at."""
_ENOUGH = 3
"""Simulations that say what one costs."""


def refuse_unpriced(plan: RunPlan, prices: PriceTable) -> None:
    """Make sure that `limits.max_cost_usd` can hold.

    Raises:
        UserError: a model's price is not known, so that its calls would count as nothing.
    """
    if plan.config.limits.max_cost_usd is None:
        return
    unknown = {role: settings for role, settings in plan.models.by_name().items() if price_of(settings, prices) is None}
    if unknown:
        named = ", ".join(f"{settings.model} ({role})" for role, settings in unknown.items())
        limit = f"limits.max_cost_usd={plan.config.limits.max_cost_usd:g}"
        raise UserError(
            f"{limit}, but no price is known of {named}: it would limit nothing.\n"
            "Set the model's price.input and price.output (USD per million tokens), or add it to data/prices."
        )


def tell_forecast(plan: RunPlan, schedule: Schedule, prices: PriceTable) -> Expectation | None:
    """What is to come, told where no terminal shows it on the way; None where nothing is to be paid."""
    expected = expect(plan, schedule, prices)
    cost = expected.cost_usd
    if not schedule.jobs or (cost is not None and not cost.expected):
        return None
    if not err.is_terminal:
        for line in lines(expected):
            tell(line)
    return expected


class Purse:
    """The money of one run, as its runner asks for it before each simulation and its models before each request."""

    def __init__(
        self, run_dir: Path, store: Store, limit_usd: float, expected: Expectation | None = None, *, in_sweep: bool
    ) -> None:
        """Open its account among those of the sweep.

        Args:
            limit_usd: for all jobs of a sweep together, earlier attempts included.
            expected: what is to come; None where it costs nothing, or is not known.
        """
        self.limit_usd = limit_usd
        self.ledger = Ledger(run_dir, limit_usd, store.cost_usd, in_sweep=in_sweep)
        self.allowance = Allowance(self.ledger)
        self._store = store
        self._unrecorded_usd = self.ledger.drawn_usd - store.cost_usd
        """What earlier attempts spent on simulations that were given up, which no record tells."""
        self._alone = not in_sweep
        costs = [entry.cost_usd for entry in store.entries.values()]
        cost = None if expected is None else expected.cost_usd
        self._prior_usd = cost.expected / expected.simulations if expected and cost and expected.simulations else 0.0
        self._ended = len(costs)
        self._ended_usd = sum(costs)
        self._least_usd = min((one.cost_usd for one in store.entries.values() if one.finished), default=0.0)
        self._in_flight = 0
        self._elsewhere: tuple[float, float] = 0.0, 0.0
        self._looked_s = -math.inf

    def gone(self) -> str | None:
        """Why no further simulation can begin: what is left pays for none; None while it may pay for one."""
        elsewhere_usd, refused_usd = self._others()
        spent_usd = self._spent_usd + elsewhere_usd
        least_usd = self._least_usd if self._ended >= _ENOUGH else 0.0
        if spent_usd < self.limit_usd and self.limit_usd - spent_usd >= max(refused_usd, least_usd):
            return None
        others = f", ${elsewhere_usd:.2f} of it in other jobs of the sweep" if elsewhere_usd else ""
        rest = "" if spent_usd >= self.limit_usd else "; the rest does not pay for another simulation"
        return f"spent ${spent_usd:.2f} of limits.max_cost_usd={self.limit_usd:g}{others}{rest}"

    def told(self, refusal: str) -> str:
        """Why the run ends, after a request was refused for want of money."""
        return f"nearly all of limits.max_cost_usd={self.limit_usd:g} is spent{refusal.removeprefix(OUT_OF_MONEY)}"

    def holds_back(self) -> bool:
        """Whether what is in flight will need what is left, so that no further simulation may begin now."""
        left_usd = self.limit_usd - self._spent_usd - self._others()[0]
        return self._in_flight > 0 and (self._in_flight + 1) * self._each_usd() > left_usd

    @property
    def _spent_usd(self) -> float:
        """By simulations that are over, and by those that were given up in earlier attempts."""
        return self._store.cost_usd + self._unrecorded_usd

    def _others(self) -> tuple[float, float]:
        """What `Ledger.others` said a moment ago."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s, self._elsewhere = now_s, self.ledger.others()
        return self._elsewhere

    def _each_usd(self) -> float:
        """What a simulation costs."""
        return self._ended_usd / self._ended if self._ended >= _ENOUGH else self._prior_usd

    def counted(
        self, simulate: Callable[[SimulationJob], Awaitable[Record]]
    ) -> Callable[[SimulationJob], Awaitable[Record]]:
        """The same, with what it costs counted."""

        async def play(job: SimulationJob) -> Record:
            self._in_flight += 1
            self._tell_others()
            try:
                record = await simulate(job)
            finally:
                self._in_flight -= 1
            cost_usd = sum(record.cost_by_role.values())
            self._ended += 1
            self._ended_usd += cost_usd
            if record.termination_reason not in OURS:
                self._least_usd = min(self._least_usd or math.inf, cost_usd)
            self._tell_others()
            return record

        return play

    def _tell_others(self) -> None:
        """The other jobs of a sweep leave what this one's simulations in flight are going to need."""
        if not self._alone:
            self.ledger.hold(self._spent_usd + self._in_flight * self._each_usd())

    def close(self) -> None:
        """Give back what was not spent."""
        self.ledger.close(max(self._spent_usd, self.ledger.drawn_usd - self.allowance.at_hand_usd))
