"""A runner with one real server, for the tests of what is left when a runner ends; prints pids, then does as told."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

import aiohttp
import psutil

from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.lease import FleetLease
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import ServerSettings


async def run(lease: FleetLease, executable: str, model: str, flags: list[str], folder: Path, until: str) -> None:
    spec = PoolSpec("agent", Vllm(), model=model, extra_args=shlex.join(flags))
    settings = ServerSettings(executable=executable, start_port=0, preflight=False)
    starting = asyncio.create_task(lease.fleet([spec], settings, folder))
    if until == "starting":
        while not any(one.children() and "gate.py" not in str(one.cmdline()) for one in psutil.Process().children()):
            await asyncio.sleep(0.2)
        report(None)
        await asyncio.sleep(600)
    fleet = await starting
    endpoint = await fleet.router("agent").acquire("s")
    if until == "ready":
        report(fleet.status()[0].port)
        await asyncio.sleep(600)
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 20000,
        "ignore_eos": True,
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{endpoint.base_url}/v1/chat/completions", json=body) as response,
    ):
        await response.content.readline()
        report(fleet.status()[0].port)
        if until == "raise":
            raise RuntimeError("a fault of the program")
        await asyncio.sleep(600)


def report(port: int | None) -> None:
    pids = [one.pid for one in psutil.Process().children(recursive=True)]
    print(json.dumps({"pids": pids, "port": port}), flush=True)


def main() -> None:
    executable, model, folder, until, *flags = sys.argv[1:]
    with FleetLease() as lease:
        asyncio.run(run(lease, executable, model, flags, Path(folder), until))


if __name__ == "__main__":
    main()
