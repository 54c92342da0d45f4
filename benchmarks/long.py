"""A run of 20,000 simulations: time and memory of the last thousand against the first, with zero-latency models.

Everything else is as in a real run: record, scoring, `profile.jsonl`, `trace.json`, the progress numbers. In a process
of its own (`python -m benchmarks.long CONVERSATIONS SIMULATIONS`).
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row

DOMAIN = "retail"
CONCURRENCY = 10


def rows(*, quick: bool) -> list[Row]:
    """20,000 simulations, quick: 3,000."""
    from benchmarks.scripted import record, save
    from tau2_fleet.benchmark.domains import load_domain

    count = 3000 if quick else 20_000
    with TemporaryDirectory() as directory:
        conversations = Path(directory) / "conversations.json"
        save(record(load_domain(DOMAIN)), conversations)
        command = [sys.executable, "-m", "benchmarks.long", str(conversations), str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    cpu_ms, memory = found["cpu_ms"], found["memory_mib"]
    # The middle of three thousands at either end: one thousand takes a second, and the machine has moods.
    ends = 1 if quick else 3
    first, last = sorted(cpu_ms[:ends])[ends // 2], sorted(cpu_ms[-ends:])[ends // 2]
    place = f"long/{count:,} simulations"
    beside = "the first thousand"
    return [
        Row(f"{place}/CPU of the last thousand", last, first, "ms/simulation", beside, goal=0.8, detail=found),
        Row(f"{place}/memory after the last thousand", memory[-1], memory[0], "MiB", beside, goal=0.6),
        Row(f"{place}/memory gained", 1024 * (memory[-1] - memory[0]) / (count - 1000), None, "KiB/simulation"),
    ]


def run(conversations: Path, count: int) -> dict[str, Any]:
    """The whole run; CPU and memory after every thousand."""
    from benchmarks.scripted import ReplayModel, load
    from tau2_fleet.batch.runner import Runner
    from tau2_fleet.batch.schedule import make_schedule
    from tau2_fleet.benchmark import prompts
    from tau2_fleet.benchmark.domains import load_domain
    from tau2_fleet.display.progress import Mode, Progress
    from tau2_fleet.record.line import Record
    from tau2_fleet.record.store import Store
    from tau2_fleet.run.gc_policy import collect_seldom, collected_in_turn
    from tau2_fleet.simulation.conversation import Rules
    from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
    from tau2_fleet.simulation.roles import Roles
    from tau2_fleet.simulation.simulate import Simulation, SimulationJob
    from tau2_fleet.telemetry.recorder import Recorder
    from tau2_fleet.telemetry.trace import TraceWriter

    collect_seldom()
    domain = load_domain(DOMAIN)
    tasks = domain.tasks("base")
    for task in tasks:
        domain.prepare(task)
    model = ReplayModel(load(conversations))
    stage = DomainContext(
        domain,
        SimulationSettings("bench", Roles(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS)),
    )
    schedule = make_schedule({DOMAIN: tasks}, seed=300, num_trials=ceil(count / len(tasks)))
    progress = Progress(schedule.totals, mode=Mode.off)
    by_id = {task.id: task for task in tasks}
    cpu_ms: list[float] = []
    memory: list[float] = []

    async def batch(run_dir: Path) -> None:
        trace = TraceWriter(run_dir / "trace.json")
        with Store(run_dir) as store, Recorder(run_dir, progress=progress, writers=[trace.write]):
            done = 0
            begun = time.process_time()

            async def simulate(job: SimulationJob) -> Record:
                nonlocal done, begun
                record = await Simulation(stage, by_id[job.key.task_id], job, store.keep_prompt).run()
                done += 1
                if done % 1000 == 0:
                    cpu_ms.append(round(time.process_time() - begun, 4))
                    memory.append(round(_resident() / 2**20, 2))
                    begun = time.process_time()
                return record

            async with collected_in_turn():
                await Runner(schedule, simulate, store, progress, max_concurrency=CONCURRENCY).run()
        trace.close()

    with TemporaryDirectory() as directory:
        asyncio.run(batch(Path(directory)))
    return {"cpu_ms": cpu_ms, "memory_mib": memory}


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
