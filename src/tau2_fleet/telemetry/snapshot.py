"""A run's running numbers at one moment: what a screen draws, here or attached from elsewhere.

`RunCounters.snapshot` makes it; it goes over a socket as JSON and comes back by `RunSnapshot.of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tau2_fleet.evaluation.forecasting import Forecast


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """What of a JSON object belongs to a dataclass; other versions may have more."""
    names = {one.name for one in fields(kind)}
    return {name: given for name, given in value.items() if name in names}


@dataclass(slots=True)
class DomainCounters:
    """One domain's simulations."""

    total: int
    done: int = 0
    passed: int = 0
    errors: int = 0
    """Ended for a reason of infrastructure."""
    to_repeat: int = 0
    """Those of the errors that are run again: not done, but failures until then."""
    in_flight: int = 0

    @property
    def pass_1(self) -> float | None:
        """Share of the simulations that have ended and succeeded; None before the first."""
        ended = self.done + self.to_repeat
        return self.passed / ended if ended else None

    def add(self, other: DomainCounters) -> None:
        self.total += other.total
        self.done += other.done
        self.passed += other.passed
        self.errors += other.errors
        self.to_repeat += other.to_repeat
        self.in_flight += other.in_flight


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One server as last seen."""

    name: str
    state: str
    running: float | None
    waiting: float | None
    kv_use: float | None
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class InFlight:
    """One simulation in flight."""

    domain: str
    task_id: str
    trial: int
    idle_s: float
    """Since it was last heard of."""
    waits_for: str
    steps: int


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """All figures of a screen."""

    domains: Mapping[str, DomainCounters] = field(default_factory=dict)
    overall: DomainCounters = field(default_factory=lambda: DomainCounters(0))
    elapsed_s: float = 0.0
    eta_s: float | None = None
    stopping: bool = False
    paused: bool = False
    cost_usd: float = 0.0
    cost_at_end: Forecast | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    replicas: tuple[ReplicaFigures, ...] = ()
    idle: tuple[InFlight, ...] = ()
    """Those in flight that were heard of least lately."""
    last: tuple[InFlight, ...] = ()
    """All that are in flight, once nothing else is left to begin and they are few."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """From its JSON form.

        Raises:
            TypeError, ValueError, AttributeError: it is none.
        """
        given = _known(cls, value)
        domains = {name: DomainCounters(**_known(DomainCounters, one)) for name, one in given["domains"].items()}
        ahead = given.get("cost_at_end")
        lists: dict[str, Any] = {
            name: tuple(kind(**_known(kind, one)) for one in given.get(name, ()))
            for name, kind in (("replicas", ReplicaFigures), ("idle", InFlight), ("last", InFlight))
        }
        return cls(
            **{
                **given,
                "domains": domains,
                "overall": DomainCounters(**_known(DomainCounters, given["overall"])),
                "cost_at_end": None if ahead is None else Forecast(**_known(Forecast, ahead)),
                **lists,
            }
        )
