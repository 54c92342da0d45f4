"""One of the processes that share a run's simulations, from the side of the run; `shard_processes.py` has them all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.paths import IMPORT_ROOT
from tau2_fleet.record.line import Record
from tau2_fleet.run.shard_messages import ShardCommand, message
from tau2_fleet.simulation.simulate import SimulationJob

_MODULE = "tau2_fleet.run.shard_process"
_LONGEST_LINE = 2**24


@dataclass(eq=False, slots=True)
class PlayedElsewhere:
    """A simulation that is being played somewhere."""

    job: SimulationJob
    done: asyncio.Future[tuple[Record, str | None]]
    deaths: int = 0


@dataclass(eq=False, slots=True)
class ShardProcess:
    """One process."""

    number: int
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: str | None = None
    pending: dict[int, PlayedElsewhere] = field(default_factory=dict)
    """By the number of the simulation in log lines."""
    over: bool = False

    async def start(self) -> None:
        """Start it, in a session of its own; in place of one that has ended.

        Raises:
            OSError: it cannot be made.
        """
        paths = [str(IMPORT_ROOT), *(path or os.getcwd() for path in sys.path)]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
            start_new_session=True,
            limit=_LONGEST_LINE,
        )

    async def ended(self) -> None:
        """Return when the process has ended."""
        if self.process is not None:
            await self.process.wait()

    def send(self, kind: ShardCommand, **fields: Any) -> None:
        """Tell the process something; one that is gone is found to be so elsewhere."""
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(message(kind, **fields))

    def kill(self) -> None:
        """End the process and whatever of it is left."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
