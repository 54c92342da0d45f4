"""What goes over a run's socket, a JSON line each way: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from tau2_fleet.telemetry.snapshot import RunSnapshot

VERSION = 1
LONGEST_REQUEST = 64 * 2**10
"""Bytes."""


class Verb(StrEnum):
    """What a run can be asked for."""

    status = "status"
    pause = "pause"
    resume = "resume"
    drain = "drain"
    cancel = "cancel"
    rerun = "rerun"
    set = "set"


class State(StrEnum):
    """How a run is."""

    starting = "starting"
    running = "running"
    paused = "paused"
    """No simulation begins, no request goes out."""
    draining = "draining"
    """No simulation begins; the run ends with those in flight."""
    stopping = "stopping"
    """It is being ended, by a signal, a limit or an error."""
    closing = "closing"
    """The simulations are over, and what remains is written."""
    hangs = "hangs"
    """Its process is there and does nothing."""
    died = "died"
    """Its process is gone and has left no summary."""
    ended = "ended"
    unbegun = "unbegun"
    """It ended before there was anything to sum up."""

    @property
    def live(self) -> bool:
        """Whether the run can be asked for something."""
        return self not in (State.died, State.ended, State.unbegun)


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """One thing that is asked of a run."""

    do: Verb
    task: str | None = None
    trial: int | None = None
    every: bool = False
    """`rerun`: all that ended in an infrastructure error; `drain`: the sweep that the run is a job of, too."""
    key: str = ""
    value: str = ""

    @classmethod
    def of(cls, value: Any) -> Self:
        """From its JSON form.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, dict) or value.keys() - {one.name for one in fields(cls)}:
            raise ValueError("no request of this version")
        trial = value.get("trial")
        if not (trial is None or isinstance(trial, int)):
            raise ValueError("no request: trial is no number")
        if not all(isinstance(value.get(name) or "", str) for name in ("task", "key", "value")):
            raise ValueError("no request: a text was expected")
        return cls(**{**value, "do": Verb(str(value.get("do")))})


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """What came of it."""

    done: bool
    said: tuple[str, ...] = ()
    """For people, a line each."""
    refused: bool = False
    """It may not be done, whoever asks."""


@dataclass(frozen=True, slots=True)
class ProviderRequests:
    """A paid provider's requests."""

    in_flight: int
    waiting: int
    limit: float | None
    """At once at most; None: no limit is known."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a run is and what it waits for."""

    state: State
    doing: str = ""
    """What it is at, in a few words."""
    host: str = ""
    pid: int = 0
    run_id: str = ""
    attempt: int = 0
    at_s: float = 0.0
    """When this was so, in seconds since the epoch."""
    shown: RunSnapshot = field(default_factory=RunSnapshot)
    queued: int = 0
    withdrawn: int = 0
    """Taken out of the queue by hand."""
    max_concurrency: int | None = None
    """None: no simulation may begin yet."""
    auto: bool = False
    """Whether the program sets it."""
    requests: int = 0
    """In flight at the fleet's servers."""
    held: int = 0
    """Simulations whose next request a pause holds back, as far as this process plays them."""
    providers: Mapping[str, ProviderRequests] = field(default_factory=dict)
    log_level: str = ""
    lag_s: float = 0.0
    """Since when the event loop has not turned; 0: it turns."""
    stack: tuple[str, ...] = ()
    """Where it stands then, the innermost call first."""
    by_hand: tuple[str, ...] = ()
    """What was done through the socket, the last few."""
    v: int = VERSION

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """From its JSON form; fields of later versions are passed over.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: it is none.
        """
        names = {one.name for one in fields(cls)}
        given = {name: one for name, one in value.items() if name in names}
        providers = {name: ProviderRequests(**one) for name, one in given.get("providers", {}).items()}
        lists = {name: tuple(map(str, given.get(name, ()))) for name in ("stack", "by_hand")}
        shown = RunSnapshot.of(given["shown"])
        return cls(**{**given, "state": State(given["state"]), "shown": shown, "providers": providers, **lists})
