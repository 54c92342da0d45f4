"""A whole batch with zero-latency models: CPU and memory per simulation, ours beside the package's `run_tasks`.

Each side runs in a process of its own (`python -m benchmarks.batch SIDE …`), so that peak memory is its own;
start-up (imports, reading the data) is measured apart and left out of the cost per simulation on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one batch."""

    cpu_s: float
    simulations: int
    peak_bytes: int
    reward: float
    """Mean reward: both sides must have done the same work."""

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.simulations


GOALS = {"retail": 200.0, "airline": 300.0, "telecom": 40.0}


def rows(*, quick: bool) -> list[Row]:
    """Measure all domains at concurrency 1 and 10.

    The package rewrites its whole results file after each simulation, so its cost grows with the number
    of tasks; telecom, where a simulation is cheap, shows it and is run whole.
    """
    from benchmarks.scripted import record, save
    from src.benchmark.domains import load_domain

    table: list[Row] = []
    for name, goal in GOALS.items():
        count = (114 if name == "telecom" else 20) if not quick else (40 if name == "telecom" else 6)
        with TemporaryDirectory() as directory:
            path = Path(directory) / "conversations.json"
            ids = [task.id for task in load_domain(name).tasks("base")][:count]
            save(record(load_domain(name), ids), path)
            for concurrency in (1, 10):
                repeats = max(1, 400 // count) if quick else max(1, 2000 // count)
                ours = measure("ours", name, path, concurrency, repeats)
                events = measure("ours-with-events", name, path, concurrency, repeats)
                theirs = measure("package", name, path, concurrency, 1)
                if not ours.reward == events.reward == theirs.reward:
                    raise AssertionError(f"{name}: rewards differ: {ours.reward}, {events.reward}, {theirs.reward}")
                place = f"batch/{name}/concurrency {concurrency}"
                guarded = concurrency == 1
                table += [
                    Row(f"{place}/cpu", ours.cpu_ms, theirs.cpu_ms, "ms/simulation", guarded=guarded, goal=goal),
                    Row(f"{place}/cpu with events", events.cpu_ms, theirs.cpu_ms, "ms/simulation", goal=goal * 0.75),
                    Row(f"{place}/peak memory", ours.peak_bytes / 2**20, theirs.peak_bytes / 2**20, "MiB"),
                ]
    return table


def measure(side: str, domain: str, conversations: Path, concurrency: int, repeats: int) -> Measured:
    """Run one side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.batch", side, domain, str(conversations), str(concurrency)]
    done = subprocess.run(
        [*command, str(repeats)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def run_ours(domain_name: str, conversations: Path, concurrency: int, repeats: int, events: bool) -> Measured:
    """The batch through `Runner`, record and scoring included."""
    import asyncio

    from benchmarks.scripted import ReplayModel, load
    from src.batch.runner import Runner
    from src.batch.schedule import make_schedule
    from src.batch.store import Store
    from src.benchmark import prompts
    from src.benchmark.domains import load_domain
    from src.simulation.conversation import Rules
    from src.simulation.record import Record
    from src.simulation.simulate import Job, Simulation
    from src.simulation.stage import Cast, Play, Stage
    from src.telemetry.recorder import Recorder

    class Nobody:
        def started(self, *_: object) -> None: ...
        def finished(self, *_: object) -> None: ...

    known = load(conversations)
    domain = load_domain(domain_name)
    tasks = domain.tasks("base", ids=list(known))
    model = ReplayModel(known)
    stage = Stage(domain, Play("bench", Cast(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS)))
    by_id = {task.id: task for task in tasks}

    async def batch(directory: Path, trials: int) -> Store:
        with Store(directory) as store:
            schedule = make_schedule({domain_name: tasks}, seed=300, num_trials=trials)

            async def simulate(job: Job) -> Record:
                return await Simulation(stage, by_id[job.key.task_id], job, store.keep_prompt).run()

            await Runner(schedule, simulate, store, Nobody(), max_concurrency=concurrency).run()
            return store

    with TemporaryDirectory() as directory:
        run_dir = Path(directory)
        asyncio.run(batch(run_dir / "warm", 1))
        model.turns.clear()
        begun = time.process_time()
        if events:
            with Recorder(run_dir):
                store = asyncio.run(batch(run_dir / "timed", repeats))
        else:
            store = asyncio.run(batch(run_dir / "timed", repeats))
        cpu_s = time.process_time() - begun
    rewards = [entry.reward for entry in store.entries.values()]
    return Measured(cpu_s, len(rewards), _peak_bytes(), round(sum(rewards) / len(rewards), 6))


def run_package(domain_name: str, conversations: Path, concurrency: int) -> Measured:
    """The batch through the package's `run_tasks`, with its `generate` replaced by the recorded replies."""
    import tau2.agent.llm_agent as agents
    import tau2.run as package
    import tau2.user.user_simulator as users
    from tau2.data_model.message import AssistantMessage, ToolCall
    from tau2.evaluator.evaluator import EvaluationType
    from tau2.registry import registry

    from benchmarks.scripted import load

    known = load(conversations)
    here = threading.local()
    run_task = package.run_task

    def run_task_of_thread(*args: Any, **kwargs: Any) -> Any:
        here.task_id, here.turns = kwargs["task"].id, {"agent": 0, "user": 0}
        return run_task(*args, **kwargs)

    def speak(role: str) -> Callable[..., AssistantMessage]:
        def generate(model: str, messages: Any, tools: Any = None, **_: Any) -> AssistantMessage:
            line = known[here.task_id][role][here.turns[role]]
            here.turns[role] += 1
            calls = [
                ToolCall(id=identity, name=name, arguments=json.loads(arguments))
                for identity, name, arguments in line["calls"]
            ]
            return AssistantMessage(
                role="assistant",
                content=line["text"],
                tool_calls=calls or None,
                cost=0.0,
                usage={"completion_tokens": 50, "prompt_tokens": 1000},
            )

        return generate

    package.run_task = run_task_of_thread
    agents.generate, users.generate = speak("agent"), speak("user")
    tasks = [task for task in registry.get_tasks_loader(domain_name)() if task.id in known]

    def batch(save_to: Path) -> list[float]:
        results = package.run_tasks(
            domain_name,
            tasks,
            "llm_agent",
            "user_simulator",
            llm_agent="scripted",
            llm_args_agent={},
            llm_user="scripted",
            llm_args_user={},
            max_steps=200,
            save_to=save_to,
            console_display=False,
            evaluation_type=EvaluationType.ALL,
            max_concurrency=concurrency,
            log_level="ERROR",
        )
        return [simulation.reward_info.reward for simulation in results.simulations]

    with TemporaryDirectory() as directory:
        begun = time.process_time()
        rewards = batch(Path(directory) / "results.json")
        cpu_s = time.process_time() - begun
    return Measured(cpu_s, len(rewards), _peak_bytes(), round(sum(rewards) / len(rewards), 6))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "ours-with-events", "package"])
    parser.add_argument("domain")
    parser.add_argument("conversations", type=Path)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("repeats", type=int)
    args = parser.parse_args()
    if args.side == "package":
        measured = run_package(args.domain, args.conversations, args.concurrency)
    else:
        events = args.side == "ours-with-events"
        measured = run_ours(args.domain, args.conversations, args.concurrency, args.repeats, events)
    fields = {"cpu_s": measured.cpu_s, "simulations": measured.simulations}
    print(json.dumps({**fields, "peak_bytes": measured.peak_bytes, "reward": measured.reward}))


if __name__ == "__main__":
    main()
