"""What a tracker is: the one thing that `tracking.process` talks to, in a process of its own.

A tracker is a file of `tau2_fleet.tracking.sinks`, or a class anywhere that `wandb.sink` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FOLDER = "tau2_fleet.tracking.sinks"
KEY = "wandb.sink"


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a tracker is told of a run at its start."""

    run_dir: Path
    mode: str
    """`online` or `offline`, as the run resolved it."""
    project: str
    entity: str | None
    group: str | None
    """The sweep, where the configuration names no other group."""
    job_type: str
    name: str
    tags: list[str]
    notes: str | None
    transcripts: bool
    """Whether conversations may leave the run directory."""
    config: dict[str, Any]
    """The resolved configuration, by dotted keys, without secrets."""
    key_files: list[str]
    """Files that hold keys; they must not leave either."""
    finish_timeout_s: float
    """How long the end of the run waits for `finish`."""


@dataclass(frozen=True, slots=True)
class SinkStarted:
    """How a tracker began."""

    mode: str
    """`online`: others can see the run now; `offline`: it is kept in the run directory."""
    url: str | None = None
    """Where it can be seen."""
    problem: str | None = None
    """Why it is not as it was asked for; shown to people, in one line."""


class TrackerSink(Protocol):
    """Receives one run. Whatever a method raises is told once, as a warning, and changes nothing else of the run.

    A method that does not return is waited for at the end of the run alone, and not for ever.
    """

    def start(self, run: RunStart) -> SinkStarted | None:
        """The run begins; None means kept offline, without an address."""
        ...

    def log(self, values: Mapping[str, float]) -> None:
        """The running numbers, every few seconds; `finished` is the number of simulations done."""
        ...

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        """The run is over, its files are written; 255 when it was lost without a word (`summary` is empty then).

        Returns:
            What could not be completed, for people; None: all is kept.
        """
        ...
