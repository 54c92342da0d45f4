"""How busy the servers of a run were, and which key would have made it faster, where that is sure.

`run/in_flight.py` has it hear the events of a run, prints what it tells at the end and keeps it in `summary.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tau2_fleet.telemetry.events import ConcurrencyChange, Event, LLMCall, ReplicaSample

_ENOUGH_S = 20.0
"""Less time says nothing,"""
_LONGEST_GAP_S = 15.0
"""and a sample stands for so long at most."""
_ROOM = 0.5
"""A KV cache that was never fuller could have held more,"""
_WAITED = 0.02
"""if requests waited for no more than this share of the time."""
_HELD = 0.5
"""What decided for this share of the time is what held a run back."""
_THRASH = 50.0
"""Preemptions in 1,000 requests that cost time beyond doubt."""


@dataclass(slots=True)
class PoolLoad:
    """One pool, its replicas together; shares of the time in which simulations were in flight."""

    replicas: int = 0
    busy: float = 0.0
    """Share in which a replica had a request."""
    waited: float = 0.0
    """Share in which a replica had a queue of some length."""
    kv_mean: float = 0.0
    kv_most: float = 0.0
    preemptions: int = 0
    requests: int = 0
    """Answered, errors apart."""


@dataclass(slots=True)
class _ReplicaSums:
    """Sums over the time of one replica."""

    at: float
    running: float
    waiting: float
    kv_use: float
    preempted_before: float
    preemptions: float
    seconds: float = 0.0
    busy_s: float = 0.0
    waited_s: float = 0.0
    kv_s: float = 0.0
    kv_most: float = 0.0


@dataclass(slots=True)
class ServerLoad:
    """Gathers, in constant memory."""

    _replicas: dict[str, _ReplicaSums] = field(default_factory=dict)
    _requests: dict[str, int] = field(default_factory=dict)
    _decided: tuple[float, str | None] | None = None
    _decided_s: dict[str | None, float] = field(default_factory=dict)
    """How long which server or provider decided how many simulations are in flight."""
    _last: float = 0.0

    def listen(self, event: Event) -> None:
        """Take in an event of the run."""
        kind = type(event)
        if kind is LLMCall:
            assert isinstance(event, LLMCall)
            self._last = event.time
            if event.replica is not None and event.error is None:
                pool = event.replica.rpartition("/")[0]
                self._requests[pool] = self._requests.get(pool, 0) + 1
        elif kind is ReplicaSample:
            assert isinstance(event, ReplicaSample)
            self._sample(event)
        elif kind is ConcurrencyChange:
            assert isinstance(event, ConcurrencyChange)
            self._count_decision(event.time)
            self._decided = (event.time, event.pool)

    def _count_decision(self, now: float) -> None:
        if self._decided is not None:
            since, pool = self._decided
            self._decided_s[pool] = self._decided_s.get(pool, 0.0) + max(0.0, now - since)

    def _sample(self, sample: ReplicaSample) -> None:
        """The time since the last sample counts as that showed it, while replies come."""
        replica = self._replicas.get(sample.replica)
        if replica is None:
            self._replicas[sample.replica] = _ReplicaSums(
                sample.time, sample.running, sample.waiting, sample.kv_use, sample.preemptions, sample.preemptions
            )
            return
        passed_s = min(max(0.0, sample.time - replica.at), _LONGEST_GAP_S)
        if self._last >= replica.at:
            replica.seconds += passed_s
            replica.busy_s += passed_s * (replica.running > 0)
            replica.waited_s += passed_s * (replica.waiting > 1 + replica.running / 10)
            replica.kv_s += passed_s * replica.kv_use
        replica.kv_most = max(replica.kv_most, sample.kv_use)
        replica.at, replica.running, replica.waiting = sample.time, sample.running, sample.waiting
        replica.kv_use, replica.preemptions = sample.kv_use, max(replica.preemptions, sample.preemptions)

    def pools(self) -> dict[str, PoolLoad]:
        """What there is to say of each pool that told of itself."""
        found: dict[str, PoolLoad] = {}
        seconds: dict[str, float] = {}
        for name, replica in self._replicas.items():
            pool = name.rpartition("/")[0]
            load = found.setdefault(pool, PoolLoad(requests=self._requests.get(pool, 0)))
            load.replicas += 1
            load.busy += replica.busy_s
            load.waited += replica.waited_s
            load.kv_mean += replica.kv_s
            load.kv_most = max(load.kv_most, replica.kv_most)
            load.preemptions += int(replica.preemptions - replica.preempted_before)
            seconds[pool] = seconds.get(pool, 0.0) + replica.seconds
        for pool, load in found.items():
            whole_s = seconds[pool] or 1.0
            load.busy, load.waited = load.busy / whole_s, load.waited / whole_s
            load.kv_mean /= whole_s
        return {pool: load for pool, load in found.items() if seconds[pool]}

    def seconds(self) -> float:
        """For how long the best known replica was seen at work."""
        return max((replica.seconds for replica in self._replicas.values()), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """The part of `summary.json` about it."""
        return {
            pool: {name: round(value, 4) for name, value in asdict(load).items()} for pool, load in self.pools().items()
        }

    def told(self) -> Iterator[str]:
        """A line for each pool; none of a run that was over too soon to tell."""
        if self.seconds() < _ENOUGH_S:
            return
        for pool, load in self.pools().items():
            kv = f", KV cache {load.kv_mean:.0%} full in the mean, {load.kv_most:.0%} at most" if load.kv_most else ""
            preempted = f", {load.preemptions:,} preemptions" if load.preemptions else ""
            waited = f", with a queue {load.waited:.0%} of it" if load.waited > _WAITED else ""
            yield f"servers of {pool} ({load.replicas}): busy {load.busy:.0%} of the time{waited}{kv}{preempted}"

    def advice(
        self, number: int | None, begun: int, paid: Mapping[str, float], refused: Mapping[str, int]
    ) -> list[str]:
        """Keys that would have made the run faster without any doubt.

        Args:
            number: `max_concurrency`, None for auto.
            begun: simulations of this attempt.
            paid: name of each paid provider to its limit of requests in flight, where that is only the default.
            refused: 429s of each.
        """
        self._count_decision(self._last)
        self._decided = None
        pools, found = self.pools(), []
        if self.seconds() < _ENOUGH_S:
            return []
        if number is not None and pools and begun > number:
            if all(load.kv_most and load.kv_most < _ROOM and load.waited < _WAITED for load in pools.values()):
                most = max(load.kv_most for load in pools.values())
                found.append(
                    f"max_concurrency=auto would have been faster than {number}: "
                    f"no request waited, and no KV cache was more than {most:.0%} full"
                )
            for pool, load in pools.items():
                if load.requests and 1000 * load.preemptions / load.requests > _THRASH:
                    found.append(
                        f"max_concurrency=auto would have been faster than {number}: the servers of {pool} "
                        f"preempted {load.preemptions:,} of {load.requests:,} requests and computed them again"
                    )
        whole_s = sum(self._decided_s.values())
        for name, limit in paid.items():
            held_s = self._decided_s.get(name, 0.0)
            if whole_s and held_s > _HELD * whole_s and not refused.get(name):
                found.append(
                    f"providers.{name.partition(' ')[0]}.max_in_flight above {limit:.0f} would have been faster: "
                    f"it held the run back {held_s / whole_s:.0%} of the time, and no 429 came"
                )
        return found
