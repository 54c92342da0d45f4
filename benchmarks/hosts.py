"""Many servers: what choosing a replica among a thousand costs a request, and how soon 64 servers on 8 hosts are ready.

The hosts are eight connections to this machine, so that the cores that the servers start on are its own.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row

REPLICAS, PER_HOST = 1000, 8
SESSIONS = 10_000
SERVERS, HOSTS = 64, 8


def rows(*, quick: bool) -> list[Row]:
    """Measure both."""
    rounds = 2 if quick else 6
    found = [
        Row(f"hosts/route among {REPLICAS:,} replicas, {rule}", asyncio.run(route_us(rule, rounds)), None, "µs/request",
            limit=20.0, detail={"hosts": REPLICAS // PER_HOST, "sessions": SESSIONS, "requests": rounds * SESSIONS})
        for rule in ("sticky", "least_loaded")
    ]  # fmt: skip
    servers = 8 if quick else SERVERS
    begun = time.monotonic()
    asyncio.run(start(servers))
    name = f"hosts/start of {servers} simulated servers on {HOSTS} hosts"
    return [*found, Row(name, time.monotonic() - begun, None, "s", limit=15.0)]


async def route_us(rule: str, rounds: int) -> float:
    """CPU of one request's acquire and release, half of the sessions' requests in flight at any time; the median."""
    from tau2_fleet.fleet.router import PoolRouter
    from tau2_fleet.fleet.routing_policy import routing_policy
    from tau2_fleet.llm.endpoints import Endpoint

    router = PoolRouter("agent", routing_policy(rule))
    for number in range(REPLICAS):
        host, port = divmod(number, PER_HOST)
        router.add(Endpoint(f"agent/{number}", f"http://10.0.{host}.1:{1900 + port}", "model", "key"))
    sessions = [f"run/retail/{number}/0/agent" for number in range(SESSIONS)]
    held = {session: await router.acquire(session) for session in sessions[::2]}
    spent = []
    for _ in range(rounds):
        begun = time.process_time()
        for session in sessions:
            if (endpoint := held.pop(session, None)) is None:
                held[session] = await router.acquire(session)
            else:
                router.release(endpoint, session)
                router.release(await router.acquire(session), session)
        spent.append((time.process_time() - begun) / SESSIONS * 1e6)
    return statistics.median(spent)


async def start(servers: int) -> None:
    """Start a fleet on the hosts and wait until all of it is ready."""
    from tau2_fleet.fleet.fleet import Fleet
    from tau2_fleet.fleet.kinds.simulated import Simulated
    from tau2_fleet.fleet.server_kind import PoolSpec
    from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
    from tau2_fleet.simserver.scripts import script_file

    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks.json"
        tasks.write_bytes(script_file({}))
        pool = PoolSpec("agent", Simulated(), "agent", num=servers, tool_call_parser=None, min_ready=servers)
        names = [f"h{number}" for number in range(HOSTS)]
        hosts = HostsSettings({"_target_": "benchmarks.hosts.Here"}, names=names, python=sys.executable)
        server = ServerSettings("simulated", start_port=0, num=servers, min_ready=servers, preflight=False)
        fleet = Fleet([pool], server, Path(folder), tasks, hosts=hosts)
        try:
            await fleet.start()
        finally:
            await fleet.stop()


def Here(settings: object) -> object:
    """Hosts that are each reached by nothing but a Python of this machine."""
    from tau2_fleet.fleet.far.named_hosts import NamedHosts

    class Connected(NamedHosts):
        name = "here"

        def words(self, host: str) -> list[str]:
            return self.python_words()

    return Connected(settings)  # type: ignore[arg-type]
