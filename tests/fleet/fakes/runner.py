"""A runner for the tests of the reaper: starts a fleet of fake servers, prints its pids, then does as it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

from tau2_fleet.fleet.lease import FleetLease
from tests.fleet.support import QUICK, children_of, fake_pool, fake_settings
from tests.waiting import until


async def run(lease: FleetLease, folder: Path, behaviour: str) -> None:
    pools = [fake_pool(folder, 2, deaf=True, children=True)]
    fleet = await lease.fleet(pools, fake_settings(folder, preflight=False), folder)
    try:
        await until(lambda: len(fleet.endpoints()) == 2)
        servers = [status.pid for status in fleet.status()]
        kin = [pid for number in (0, 1) for pid in children_of(fleet.logs / f"agent-{number}.log")]
        if behaviour == "fork" and os.fork() == 0:
            signal.pause()  # a child that has inherited every open file and outlives its parent
        told = {"servers": servers, "kin": kin, "reaper": fleet.reaper_pid}
        print(json.dumps(told | {"ports": [status.port for status in fleet.status()]}), flush=True)
        if behaviour == "raise":
            raise RuntimeError("a fault of the program")
        if behaviour == "freeze":
            threading.Event().wait(600)  # the event loop stands still
        await asyncio.sleep(600)
    finally:
        await fleet.detach()


def main() -> None:
    with FleetLease(QUICK) as lease:
        asyncio.run(run(lease, Path(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
