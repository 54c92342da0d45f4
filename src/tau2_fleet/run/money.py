"""What a run may spend: prices that must be known, what a sweep's other jobs have spent, room for what is in flight."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.display.console import err, tell
from tau2_fleet.errors import UserError
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.record.line import Record
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.record.store import Store
from tau2_fleet.run.expectation import Expectation, expect, lines, price_of
from tau2_fleet.run.plan import RunPlan
from tau2_fleet.simulation.simulate import SimulationJob

_LOOK_S = 2.0
"""How often the records of other jobs are looked at."""
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
    """The money of one run, as its runner asks for it before each simulation."""

    def __init__(self, run_dir: Path, store: Store, expected: Expectation | None, *, in_sweep: bool) -> None:
        """`expected`: what is to come; None where it costs nothing."""
        spent = [entry.cost_usd for entry in store.entries.values()]
        cost = None if expected is None else expected.cost_usd
        self._prior = cost.expected / expected.simulations if expected and cost and expected.simulations else 0.0
        self._ended = len(spent)
        self._ended_usd = sum(spent)
        self._in_flight = 0
        self._siblings = _Siblings(run_dir) if in_sweep else None

    def elsewhere_usd(self) -> float:
        """What the other jobs of the sweep have spent, their earlier attempts included."""
        return 0.0 if self._siblings is None else self._siblings.spent_usd()

    def holds_back(self, left_usd: float) -> bool:
        """Whether what is in flight will need what is left, so that no further simulation may begin now."""
        return self._in_flight > 0 and (self._in_flight + 1) * self._each_usd() > left_usd

    def _each_usd(self) -> float:
        """What a simulation costs."""
        return self._ended_usd / self._ended if self._ended >= _ENOUGH else self._prior

    def counted(
        self, simulate: Callable[[SimulationJob], Awaitable[Record]]
    ) -> Callable[[SimulationJob], Awaitable[Record]]:
        """The same, with what it costs counted."""

        async def play(job: SimulationJob) -> Record:
            self._in_flight += 1
            try:
                record = await simulate(job)
            finally:
                self._in_flight -= 1
            self._ended += 1
            self._ended_usd += sum(record.cost_by_role.values())
            return record

        return play


class _Siblings:
    """What stands in the records of the other jobs of a sweep; only what was added since is read."""

    def __init__(self, run_dir: Path) -> None:
        self._own = run_dir.resolve()
        self._read: dict[Path, int] = {}
        self._spent_usd = 0.0
        self._looked = float("-inf")

    def spent_usd(self) -> float:
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            for path in self._own.parent.glob(f"*/{RECORD_FILE}"):
                if path.parent.resolve() != self._own:
                    self._add(path)
        return self._spent_usd

    def _add(self, path: Path) -> None:
        from tau2_fleet.record.line import DamagedRecord, read_line

        begin = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(begin)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    begin += len(line)
                    try:
                        self._spent_usd += sum(read_line(line).cost_by_role.values())
                    except DamagedRecord:
                        continue
        except OSError:
            return
        self._read[path] = begin
