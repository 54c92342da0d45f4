"""One fleet for the jobs of a sweep: kept while the next job wants the same servers, ended with the process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from pathlib import Path

from src.fleet.fleet import Fleet, fleet_signature
from src.fleet.guard import close_shared_guard
from src.fleet.plan import PoolSpec
from src.fleet.settings import ServerSettings
from src.fleet.supervisor import WatchSettings

_held: Fleet | None = None
_held_by = 0


async def lease(
    pools: Sequence[PoolSpec],
    server: ServerSettings,
    directory: Path,
    tasks_file: Path | None = None,
    watch: WatchSettings | None = None,
) -> Fleet:
    """A started fleet for this job: the running one if it is the same, else a new one in its place.

    Call `Fleet.detach` at the job's end and `shutdown` after the last.

    Raises:
        UserError: as `Fleet.start`.
    """
    global _held, _held_by
    held = _held if _held_by == os.getpid() else None
    if held is not None:
        if held.usable and held.signature == fleet_signature(pools, server, tasks_file):
            held.server = server
            await held.start()
            return held
        await held.stop()
    fleet = Fleet(pools, server, directory, tasks_file, watch)
    if _held_by != os.getpid():
        atexit.register(shutdown)
    _held, _held_by = fleet, os.getpid()
    await fleet.start()
    return fleet


def shutdown() -> None:
    """End the leased fleet and the guard; for the end of the process, no event loop needed."""
    global _held
    if _held is not None and _held_by == os.getpid():
        _held.end()
        _held = None
        close_shared_guard()
