"""The running numbers of a batch: done, passed, in flight, cost, replicas, who waits for what.

`progress` shows them and `tracker` sends them to W&B; both only read. Every update is O(1).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from tau2_fleet.evaluation.forecasting import Forecast
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.telemetry.cost_ahead import CostAhead
from tau2_fleet.telemetry.events import Event, LLMCall, ReplicaSample, ReplicaState, ReplyCondition, Scope, StepComplete
from tau2_fleet.telemetry.lengths_left import LengthsLeft, SimulationKey
from tau2_fleet.telemetry.live_simulations import LiveSimulations
from tau2_fleet.telemetry.replica_counters import ReplicaCounters
from tau2_fleet.telemetry.snapshot import DomainCounters, InFlight, ReplicaFigures, RunSnapshot

_MANY = 100
_ETA_S = 1 / 400
"""With more than `_MANY` in flight an ETA stands for so many seconds times their number: it looks at each of them."""


class StoredSimulation(Protocol):
    """The record of a simulation that an earlier attempt left."""

    @property
    def key(self) -> SimulationKey: ...
    @property
    def termination_reason(self) -> str: ...
    @property
    def reward(self) -> float: ...
    @property
    def cost_usd(self) -> float: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A simulation that has just ended, as the display tells it."""

    key: SimulationKey
    reward: float | None
    reason: str
    cost_usd: float
    duration_s: float


class RunCounters:
    """All running numbers of one run.

    Args:
        totals: simulations per domain, those of earlier attempts included.
        stored: what earlier attempts left of them. An infrastructure error among these is run again, and counts
            with its cost and tokens until the new record takes its place, as it does in the summary.
        clock: monotonic seconds.
        lengths: how long each simulation that is left is expected to be, in any unit; None: all alike.
    """

    def __init__(
        self,
        totals: Mapping[str, int],
        stored: Collection[StoredSimulation] = (),
        clock: Callable[[], float] = time.monotonic,
        lengths: Mapping[SimulationKey, float] | None = None,
    ) -> None:
        self.clock = clock
        self.stopping = False
        """Whether no further simulation begins: what is left by count will not be run, and there is no ETA."""
        self._left = LengthsLeft(lengths)
        self._costs = CostAhead()
        self.paused: Callable[[], bool] = lambda: False
        """Whether no request goes out; `run/experiment.py` puts the run's own pause in its place."""
        self._eta: tuple[float, float | None] = (-math.inf, None)
        self.began_s = clock()
        self.domains = {name: DomainCounters(total) for name, total in totals.items()}
        self.cost_usd = 0.0
        self.input_tokens = 0
        self.output_tokens = 0
        self.replicas: dict[str, ReplicaCounters] = {}
        self.replies: Counter[tuple[str, str]] = Counter()
        """(role, condition) to how often it was found in this attempt's replies."""
        self._live = LiveSimulations()
        self._to_repeat = {record.key: record for record in stored if record.termination_reason in OURS}
        for record in stored:
            self._count(record, 1)
            self._costs.ended(record.cost_usd)
        self.done_before = self.overall().done

    def _count(self, record: StoredSimulation, sign: int) -> None:
        """Add a stored record, or with -1 take it away again."""
        self.cost_usd += sign * record.cost_usd
        self.input_tokens += sign * record.input_tokens
        self.output_tokens += sign * record.output_tokens
        domain = self._domain(record.key[0])
        if record.key in self._to_repeat:
            domain.errors += sign
            domain.to_repeat += sign
        else:
            domain.done += sign
            domain.passed += sign * (is_success(record.reward))

    def started(self, key: SimulationKey) -> None:
        """A simulation left the queue."""
        self._live.began(key, self.clock())
        self._left.began(key)
        self._domain(key[0]).in_flight += 1

    def finished(self, key: SimulationKey, reward: float | None, reason: str, cost_usd: float) -> Finished:
        """A simulation is stored."""
        domain = self._domain(key[0])
        waiting = self._live.ended(key)
        if waiting is not None:
            domain.in_flight -= 1
        if key in self._to_repeat:
            self._count(self._to_repeat[key], -1)
            del self._to_repeat[key]
        domain.done += 1
        domain.passed += reward is not None and is_success(reward)
        domain.errors += reason in OURS
        self._costs.ended(cost_usd, self._left.of(key))
        duration = self.clock() - waiting.started_s if waiting is not None else 0.0
        if waiting is not None:
            self._left.ended(key, duration)
        return Finished(key, reward, reason, cost_usd, duration)

    def runs_again(self, stored: StoredSimulation) -> None:
        """An infrastructure error of this attempt goes back into the queue; until it ends anew it is a failure."""
        domain = self._domain(stored.key[0])
        domain.done -= 1
        domain.to_repeat += 1
        self._to_repeat[stored.key] = stored
        self._left.queued(stored.key)

    def withdrawn(self, key: SimulationKey) -> None:
        """A simulation that has not begun leaves the queue."""
        self._left.began(key)

    def queued(self, key: SimulationKey) -> None:
        """It is back."""
        self._left.queued(key)

    def cost_at_end(self) -> Forecast | None:
        """Dollars of the whole run with an 80% interval; None where too little is known, or it costs nothing."""
        overall = self.overall()
        left = overall.total - overall.done
        # nobody knows what was expected of those of earlier attempts
        length = None if self.done_before else self._left.mean_of(left)
        return None if self.stopping else self._costs.total(self.cost_usd, left, length)

    def listen(self, event: Event) -> None:
        """Take one event of the run."""
        scope, kind = event.scope, type(event)
        if kind is StepComplete:
            if scope is not None:
                self._heard(scope, _next_after(event))  # type: ignore[arg-type]
        elif isinstance(event, LLMCall):
            self.cost_usd += event.cost_usd
            self.input_tokens += event.input_tokens
            self.output_tokens += event.output_tokens
            if event.replica is not None:
                self._replica(event.replica).add(self.clock(), event.output_tokens)
            if scope is not None:
                self._heard(scope, None)
        elif isinstance(event, ReplyCondition):
            self.replies[event.role, event.condition] += 1
        elif isinstance(event, ReplicaSample):
            replica = self._replica(event.replica)
            replica.running, replica.waiting, replica.kv_use = event.running, event.waiting, event.kv_use
        elif isinstance(event, ReplicaState):
            replica = self._replica(event.replica)
            replica.state = event.state
            if event.state != "ready":
                replica.running = replica.waiting = replica.kv_use = None
        elif scope is not None:
            self._heard(scope, None)

    def _heard(self, scope: Scope, waits_for: str | None) -> None:
        self._live.heard((scope.domain, scope.task_id, scope.trial), waits_for, self.clock())

    def _replica(self, name: str) -> ReplicaCounters:
        replica = self.replicas.get(name)
        if replica is None:
            replica = self.replicas[name] = ReplicaCounters()
        return replica

    def _domain(self, name: str) -> DomainCounters:
        domain = self.domains.get(name)
        if domain is None:
            domain = self.domains[name] = DomainCounters(0)
        return domain

    def overall(self) -> DomainCounters:
        """All domains together."""
        total = DomainCounters(0)
        for domain in list(self.domains.values()):
            total.add(domain)
        return total

    def elapsed_s(self) -> float:
        return self.clock() - self.began_s

    def eta_s(self) -> float | None:
        """Seconds left, by the lengths of what is left and the pace so far; None where nothing can be said."""
        overall = self.overall()
        left = max(overall.total - overall.done, 0)
        if left == 0:
            return 0.0
        if self.stopping or overall.done == self.done_before:
            return None
        now = self.clock()
        at, eta_s = self._eta
        if len(self._live) > _MANY and now - at < _ETA_S * len(self._live) and eta_s is not None:
            return max(0.0, eta_s - (now - at))
        ages = self._live.ages(now)
        eta_s = self._left.seconds(ages, left - len(ages))
        self._eta = now, eta_s
        return eta_s

    def snapshot(self, idle: int = 3, last: int = 6) -> RunSnapshot:
        """All figures as they are now, with so many of the simulations that were heard of least lately.

        Args:
            last: how many may be in flight at the end of a run to be named, all of them.
        """
        now = self.clock()
        return RunSnapshot(
            domains=dict(self.domains),
            overall=self.overall(),
            elapsed_s=self.elapsed_s(),
            eta_s=self.eta_s(),
            stopping=self.stopping,
            paused=self.paused(),
            cost_usd=self.cost_usd,
            cost_at_end=self.cost_at_end(),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            replicas=tuple(
                ReplicaFigures(
                    name, one.state, one.running, one.waiting, one.kv_use, one.tokens_per_s(now, self.began_s)
                )
                for name, one in list(self.replicas.items())
            ),
            idle=tuple(self.idle_longest(idle)),
            last=tuple(self.last_ones(last)),
        )

    def last_ones(self, most: int) -> list[InFlight]:
        """Those in flight once nothing else is left to begin; else none."""
        overall = self.overall()
        if overall.in_flight > most or overall.total - overall.done > overall.in_flight:
            return []
        return self._live.idle_longest(None, self.clock())

    def idle_longest(self, count: int) -> list[InFlight]:
        """Simulations in flight heard from least lately."""
        return self._live.idle_longest(count, self.clock())


def _next_after(step: StepComplete) -> str:
    """Who is most likely awaited after a step: a tool's result goes back to its caller, else it is the other's turn."""
    if step.to_role == "env":
        return step.from_role
    return "agent" if step.to_role == "user" else "user"
