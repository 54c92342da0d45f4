"""`max_concurrency=auto`: how many simulations are in flight, as many as the servers can hold and never so many that
they thrash.

For each pool, from its samples and from the replies that come: the KV cache of its replicas over what conversations are
expected to hold (`demand.py`), corrected by what is seen: less after a preemption or while requests wait for memory,
more while a cache stays far from full though conversations have come of age. For each paid provider, from its
limiter: no more conversations than keep it busy. The least of all decides. `run/in_flight.py` lets it steer the runner.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tau2_fleet.batch.demand import Demand, Lengths, most_at_once
from tau2_fleet.batch.settings import MOST_IN_FLIGHT
from tau2_fleet.telemetry.events import (
    ConcurrencyChange,
    Event,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    SimulationDone,
    emit,
)

PERIOD_S = 1.0
"""Between decisions."""

_FULL = 0.85
"""Share of the KV cache that is aimed at, so that contexts have room to grow,"""
_TOO_FULL = 0.95
"""and beyond which no simulation begins until one has ended."""
_FAR_FROM_FULL = 0.7
_CONTEXT = 4_000
"""Tokens that a conversation holds beside what all share, before any is known."""
_PER_REPLICA = 32
"""Conversations to begin with for each replica that does not say how large its KV cache is."""
_PATIENCE_S = 10.0
"""Between two corrections in the same direction: what a change does shows only with the next replies."""
_LESS, _MORE = 0.85, 1.1
_LEAST_TRUST, _MOST_TRUST = 0.3, 4.0
_SHARE_S = 30.0
"""Over this long the share of conversations that have a request at the pool is averaged, from all of them on;"""
_LEAST_SHARE = 0.4
"""it is never believed to be less: a fuller pool answers later, and has more of them at once."""
_WAITS = 3
"""Samples in a row with a queue before it counts: every request waits for the step under way."""
_PER_REQUEST, _MOST_PER_REQUEST = 2.0, 50.0
"""Conversations for each request that a provider takes at once: to begin with, and at most."""
_SLOW = 3.0
"""A reply token may take so many times longer than the fastest, on servers that do not tell of their memory."""


class Gate(Protocol):
    """A paid provider's limit on requests in flight, as the limiter keeps it."""

    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def limit(self) -> float: ...


class Steered(Protocol):
    """What is steered: the runner."""

    @property
    def in_flight(self) -> int: ...
    @property
    def max_concurrency(self) -> int: ...
    def set_concurrency(self, count: int) -> None: ...
    def left(self) -> Sequence[tuple[str, str, int]]: ...


@dataclass(slots=True)
class _SampledReplica:
    """A replica as last sampled."""

    kv_tokens: float = 0.0
    kv_use: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    waited: int = 0
    """Samples in a row that showed a queue of some length."""
    preemptions: float = 0.0
    new_preemptions: float = 0.0
    """Since the last correction."""
    samples: int = 0


@dataclass(slots=True)
class _Pool:
    """One pool and what is thought of it."""

    demand: Demand = field(default_factory=Demand)
    replicas: dict[str, _SampledReplica] = field(default_factory=dict)
    trust: float = 1.0
    """Factor on what is foretold, learned from what is seen."""
    corrected_at: float = -math.inf
    ended: int = 0
    """Simulations that ended since the last correction."""
    ms_per_token: float = 0.0
    fastest: float = math.inf
    share: float = 1.0
    """Of the conversations in flight, those that have a request at the pool."""

    @property
    def kv_tokens(self) -> float:
        """Room of all replicas; 0 when one of them does not say. One not asked yet is taken to be like the others."""
        rooms = [replica.kv_tokens for replica in self.replicas.values() if replica.samples]
        return sum(rooms) / len(rooms) * len(self.replicas) if rooms and all(rooms) else 0.0

    def note_share(self, in_flight: int, passed_s: float) -> None:
        """Time has passed with so many conversations in flight."""
        if in_flight and all(replica.samples for replica in self.replicas.values()):
            asked = sum(replica.running + replica.waiting for replica in self.replicas.values())
            self.share += (min(1.0, asked / in_flight) - self.share) * min(1.0, passed_s / _SHARE_S)


class AutoConcurrency:
    """Decides from the events of a run; `steer` carries the decisions out."""

    def __init__(
        self,
        lengths: Lengths,
        gates: Callable[[], Mapping[str, Gate]] = dict,
        *,
        counted: bool = False,
        most: int = MOST_IN_FLIGHT,
    ) -> None:
        """`lengths`: expected ones of all simulations; `counted`: they are calls that earlier runs counted.

        `gates` gives the limiters of paid providers by their names.
        """
        self._counted = counted
        self._lengths = lengths
        self._gates = gates
        self._gate_trust: dict[str, float] = {}
        self._most = most
        self._pools: dict[str, _Pool] = {}
        self._decided_at: float | None = None
        self.limit = 1

    # What is heard

    def listen(self, event: Event) -> None:
        """Take in an event of the run."""
        kind = type(event)
        if kind is LLMCall:
            self._call(event)  # type: ignore[arg-type]
        elif kind is SimulationDone:
            scope = event.scope
            if scope is not None:
                length = self._lengths.get((scope.domain, scope.task_id, scope.trial), 1.0)
                for pool in self._pools.values():
                    pool.ended += 1
                    pool.demand.end(scope, length)
        elif kind is ReplicaSample:
            self._sample(event)  # type: ignore[arg-type]
        elif kind is ReplicaState:
            self._state(event)  # type: ignore[arg-type]

    def ready(self, replica: str) -> None:
        """A replica that takes requests from now on."""
        self._pool_of(replica).replicas.setdefault(replica, _SampledReplica())

    def gone(self, replica: str) -> None:
        """A replica that takes none any more."""
        self._pool_of(replica).replicas.pop(replica, None)

    def _pool_of(self, replica: str) -> _Pool:
        return self._pools.setdefault(replica.rpartition("/")[0], _Pool(Demand(self._counted)))

    def _call(self, call: LLMCall) -> None:
        if call.replica is None:
            return
        pool = self._pool_of(call.replica)
        pool.demand.add(call)
        if call.error is None and call.output_tokens:
            pace = max(0.0, call.duration_ms - call.queue_ms) / call.output_tokens
            pool.ms_per_token += (pace - pool.ms_per_token) * (0.05 if pool.ms_per_token else 1.0)
            if pool.demand.calls > 20:
                pool.fastest = min(pool.fastest, pool.ms_per_token)

    def _sample(self, sample: ReplicaSample) -> None:
        pool = self._pool_of(sample.replica)
        replica = pool.replicas.setdefault(sample.replica, _SampledReplica())
        if replica.samples and sample.preemptions > replica.preemptions:
            replica.new_preemptions += sample.preemptions - replica.preemptions
        replica.kv_tokens, replica.kv_use = sample.kv_tokens, sample.kv_use
        replica.running, replica.waiting, replica.preemptions = sample.running, sample.waiting, sample.preemptions
        replica.waited = replica.waited + 1 if sample.waiting > 1 + sample.running / 10 else 0
        replica.samples += 1

    def _state(self, event: ReplicaState) -> None:
        if event.state == "ready":
            self.ready(event.replica)
        elif event.state in ("down", "failed", "restarting", "stopped"):
            self.gone(event.replica)

    # What is decided

    async def steer(self, runner: Steered, period_s: float = PERIOD_S) -> None:
        """Decide again and again, until cancelled."""
        while True:
            self.decide(runner, asyncio.get_running_loop().time())
            await asyncio.sleep(period_s)

    def decide(self, runner: Steered, now_s: float) -> None:
        """Set the number of simulations in flight by what is known now."""
        passed_s = 0.0 if self._decided_at is None else now_s - self._decided_at
        self._decided_at = now_s
        for pool in self._pools.values():
            pool.note_share(runner.in_flight, passed_s)
        left = [self._lengths.get(key, 1.0) for key in runner.left()]
        found = [(*self._pool_limit(pool, left, runner, now_s), name) for name, pool in self._pools.items()]
        found += [(*self._gate_limit(name, gate, runner), name) for name, gate in self._gates().items()]
        limit, reason, name = min(found, key=lambda one: one[0], default=(self._most, "no server limits it", None))
        limit = max(1, min(limit, self._most))
        if _is_news(limit, runner):
            emit(ConcurrencyChange(limit, runner.max_concurrency, reason, name))
            runner.set_concurrency(limit)
        self.limit = limit

    def _pool_limit(self, pool: _Pool, left: Sequence[float], runner: Steered, now_s: float) -> tuple[int, str]:
        """Conversations that a pool can hold, and why."""
        if not pool.replicas:
            return runner.max_concurrency, "no replica is ready"
        self._correct(pool, runner, now_s)
        room = pool.kv_tokens
        if not room:
            return int(pool.trust * _PER_REPLICA * len(pool.replicas)), "the servers do not tell their KV cache"
        use = max(replica.kv_use for replica in pool.replicas.values())
        if use > _TOO_FULL:
            return min(runner.in_flight, runner.max_concurrency), f"KV cache {use:.0%} full"
        demand = pool.demand
        room = _FULL * room * pool.trust
        if not demand.known:
            return int(room / _CONTEXT), "KV cache over a typical context"
        room -= len(pool.replicas) * demand.shared
        share = max(_LEAST_SHARE, pool.share)
        growth = max(demand.growth, 1.0)
        mean = sum(left) / len(left) if left else 1.0
        own_calls = (demand.written / 2 + 8) / growth
        limit = most_at_once(left, demand.calls_per_length(mean), room / growth / share, own_calls)
        if limit is None:
            return max(len(left), runner.max_concurrency), "KV cache holds all that is left"
        return limit, f"KV cache over {demand.growth:.0f} tokens a call"

    def _correct(self, pool: _Pool, runner: Steered, now_s: float) -> None:
        """Learn from what is seen, at most once in `_PATIENCE_S`."""
        if now_s - pool.corrected_at < _PATIENCE_S:
            return
        replicas = list(pool.replicas.values())
        if pool.kv_tokens and not all(replica.samples for replica in replicas):
            return
        preempted = any(replica.new_preemptions for replica in replicas)
        waits = any(replica.waited >= _WAITS for replica in replicas)
        use = max(replica.kv_use for replica in replicas)
        slow = not pool.kv_tokens and pool.ms_per_token > _SLOW * pool.fastest
        at_limit = runner.in_flight >= 0.95 * runner.max_concurrency
        if preempted or waits or slow:
            if runner.in_flight > 1.05 * runner.max_concurrency:
                return  # what was decided has yet to come about
            pool.trust = max(_LEAST_TRUST, pool.trust * _LESS)
        elif (
            at_limit
            and pool.trust < _MOST_TRUST
            and use < _FAR_FROM_FULL
            and pool.ended >= max(1, runner.in_flight / 4)
        ):
            pool.trust *= _MORE
        else:
            return
        pool.corrected_at, pool.ended = now_s, 0
        for replica in replicas:
            replica.new_preemptions = 0.0

    def _gate_limit(self, name: str, gate: Gate, runner: Steered) -> tuple[int, str]:
        """Conversations that keep a provider busy without a queue in front of it."""
        if not math.isfinite(gate.limit):
            return self._most, "no limit"
        trust = self._gate_trust.get(name, _PER_REQUEST)
        at_limit = runner.in_flight >= 0.95 * runner.max_concurrency
        if gate.waiting > gate.limit / 2:
            trust = max(1.0, min(trust, runner.in_flight / gate.limit) * 0.97)
        elif not gate.waiting and gate.in_flight < 0.9 * gate.limit and at_limit:
            trust = min(trust * 1.1, _MOST_PER_REQUEST)
        self._gate_trust[name] = trust
        return math.ceil(trust * gate.limit), f"at most {gate.limit:.0f} requests at once to {name}"


def _is_news(limit: int, runner: Steered) -> bool:
    """Whether the limit moves by more than estimates waver, or keeps simulations from beginning."""
    before = runner.max_concurrency
    if limit < before:
        return limit < 0.95 * before or limit <= runner.in_flight < before
    return limit > 1.03 * before or limit > before == 1
