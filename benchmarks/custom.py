"""One simulation's environment and score when tau2 runs in a process of its own, beside the same played here.

CPU time of both processes together, for gold runs of base tasks: an environment opened, its calls made, its state
scored. The process plays a copy of the installed package that a comment makes other code; what is done once per process
or per task (imports, gold state) is done before the clock starts.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rows import Row
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import Task, ToolCall, source
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.benchmark.version import find_version

DOMAINS = ("mock", "retail", "airline", "telecom")
BESIDE = "a process of its own"


def rows(*, quick: bool) -> list[Row]:
    """Milliseconds of CPU time for one simulation in each domain (quick: no airline)."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source("tau2").parent, Path(folder, "tau2"), ignore=shutil.ignore_patterns("__pycache__"))
        with Path(folder, "tau2", "registry.py").open("a") as file:
            file.write("# not the installed code\n")
        version: Any = find_version(BenchmarkSettings(name="custom", path=folder))
        try:
            return [
                _row(load_domain(name), version.load_domain(name), version.child, 2 if quick else 5)
                for name in DOMAINS
                if not (quick and name == "airline")
            ]
        finally:
            version.child.close()


def _row(ours: Domain, theirs: Domain, child: Any, rounds: int) -> Row:
    ids = [task.id for task in ours.tasks()][:3]

    async def cost(domain: Domain) -> float:
        tasks = list(domain.find(ids).values())
        await _play(domain, tasks)
        begun = _cpu_s(child.pid)
        for _ in range(rounds):
            await _play(domain, tasks)
        return (_cpu_s(child.pid) - begun) * 1000 / (rounds * len(tasks))

    name = f"custom/{ours.name}/one simulation"
    return Row(name, asyncio.run(cost(ours)), asyncio.run(cost(theirs)), "ms", beside=BESIDE)


async def _play(domain: Domain, tasks: Sequence[Task]) -> None:
    for task in tasks:
        environment = domain.environment(task)
        criteria = task.evaluation_criteria
        for action in (criteria.actions if criteria is not None else None) or []:
            call = ToolCall(id="1", name=action.name, arguments=action.arguments, requestor=action.requestor)
            await environment.respond(call)
            environment.sync()
        await environment.final_state()


def _cpu_s(pid: int) -> float:
    """Of this process and that one."""
    there = psutil.Process(pid).cpu_times()
    return time.process_time() + there.user + there.system
