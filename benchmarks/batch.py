"""A whole batch with zero-latency models: CPU and memory per simulation, ours beside the package's `run_tasks`.

Each side runs in processes of its own (`python -m benchmarks.batch SIDE …`), three a side and in turn, so that peak
memory is its own; start-up (imports, reading the data) is left out of the cost per simulation on both sides. Cold is
the first trial of all tasks in a fresh process that has to work out each task's gold state, all events written; the
package, whose cost grows with the tasks, runs fewer of them.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import os
import pstats
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row

GOALS = {"retail": 200.0, "airline": 300.0, "telecom": 40.0}
"""How many times less CPU than the package's a simulation is meant to cost."""

_MOST_MIB = 250.0
_EVENTS = 1.33
"""What PROFILE events may make of a simulation's cost."""

_PROCESSES = 3
"""A side."""
_QUICK_TASKS = {"retail": 4, "airline": 2, "telecom": 20}
_FULL_TASKS = {"retail": 20, "airline": 20, "telecom": 114}


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one batch."""

    cpu_ms: float
    """Per simulation, the middle of several rounds; without rounds that of the first trial, with events."""
    peak_mib: float
    reward: float
    """Mean reward: both sides must have done the same work."""
    best_cpu_ms: float = math.inf
    """The best of those rounds."""
    best_events_cpu_ms: float = math.inf
    """The same with all that listens to events at log_level=PROFILE, in rounds between those."""
    profile: tuple[str, ...] = ()
    """Where the time goes: the functions with the most of their own."""
    events_profile: tuple[str, ...] = ()


def rows(*, quick: bool) -> list[Row]:
    """Measure all domains at concurrency 1 and 10.

    The package rewrites its whole results file after each simulation, so its cost grows with the number
    of tasks; telecom, where a simulation is cheap, shows it and is run whole.
    """
    from benchmarks.scripted import record, save
    from tau2_fleet.benchmark.domains import load_domain

    table: list[Row] = []
    for name, goal in GOALS.items():
        count = (_QUICK_TASKS if quick else _FULL_TASKS)[name]
        with TemporaryDirectory() as directory:
            path, whole = Path(directory) / "conversations.json", Path(directory) / "whole.json"
            ids = [task.id for task in load_domain(name).tasks("base")]
            conversations = record(load_domain(name), ids)
            save(conversations, whole)
            save({identity: conversations[identity] for identity in ids[:count]}, path)
            for concurrency in (10,) if quick and name != "retail" else (1, 10):
                repeats = max(1, (200 if quick else 1000) // count)
                found = [
                    (measure("ours", name, path, concurrency, repeats), measure("package", name, path, concurrency, 1))
                    for _ in range(1 if quick else _PROCESSES)
                ]
                rounds = [one for one, _ in found]
                ours, theirs = _middle(rounds), _middle([other for _, other in found])
                cold = _middle([measure("ours", name, whole, concurrency, 0) for _ in found])
                if ours.reward != theirs.reward:
                    raise AssertionError(f"{name}: rewards differ: {ours.reward}, {theirs.reward}")
                place = f"batch/{name}/concurrency {concurrency}"
                detail = {"profile": list(ours.profile)} if concurrency == 10 else {}
                table += [
                    Row(f"{place}/cpu", ours.cpu_ms, theirs.cpu_ms, "ms/simulation", goal=goal, detail=detail),
                    Row(f"{place}/cpu, cold, with events", cold.cpu_ms, theirs.cpu_ms, "ms/simulation", goal=goal),
                    Row(
                        f"{place}/cpu with events",
                        min(one.best_events_cpu_ms for one in rounds),
                        min(one.best_cpu_ms for one in rounds),
                        "ms/simulation",
                        "the same without, best rounds",
                        goal=1 / _EVENTS,
                        detail={"profile": list(ours.events_profile)} if concurrency == 10 else {},
                    ),
                    Row(f"{place}/peak memory", ours.peak_mib, theirs.peak_mib, "MiB", limit=_MOST_MIB),
                ]
    return table


def _middle(found: list[Measured]) -> Measured:
    """The one in the middle by its CPU time."""
    return sorted(found, key=lambda one: one.cpu_ms)[len(found) // 2]


def measure(side: str, domain: str, conversations: Path, concurrency: int, repeats: int) -> Measured:
    """Run one side in a process of its own; ours with 0 repeats has the first trial alone."""
    command = [sys.executable, "-m", "benchmarks.batch", side, domain, str(conversations), str(concurrency)]
    done = subprocess.run(
        [*command, str(repeats)],
        capture_output=True,
        text=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def run_ours(domain_name: str, conversations: Path, concurrency: int, repeats: int) -> Measured:
    """The batch through `Runner`, record and scoring included; rounds with and without events take turns."""
    import asyncio
    import logging

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
    from tau2_fleet.telemetry.levels import PROFILE
    from tau2_fleet.telemetry.logs import setup
    from tau2_fleet.telemetry.recorder import Recorder
    from tau2_fleet.telemetry.trace import TraceWriter
    from tau2_fleet.tracking.live_metrics import LiveMetrics

    collect_seldom()
    known = load(conversations)
    domain = load_domain(domain_name)
    tasks = domain.tasks("base", ids=list(known))
    model = ReplayModel(known)
    context = DomainContext(
        domain,
        SimulationSettings("bench", Roles(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS)),
    )
    by_id = {task.id: task for task in tasks}

    async def batch(directory: Path, trials: int, events: bool) -> tuple[float, list[float]]:
        """CPU seconds and rewards."""
        schedule = make_schedule({domain_name: tasks}, seed=300, num_trials=trials)
        progress = Progress(schedule.totals, mode=Mode.off)
        with ExitStack() as stack:
            store = stack.enter_context(Store(directory))
            if events:
                logs = stack.enter_context(setup(directory, PROFILE))
                trace = TraceWriter(directory / "trace.json")
                stack.callback(trace.close)
                live = LiveMetrics(progress.counters)
                recorder = Recorder(
                    directory, logs=logs, progress=progress, listeners=[live.listen], writers=[trace.write]
                )
                stack.enter_context(recorder)

            async def simulate(job: SimulationJob) -> Record:
                return await Simulation(context, by_id[job.key.task_id], job, store.keep_prompt).run()

            begun = time.process_time()
            async with collected_in_turn():
                await Runner(schedule, simulate, store, progress, max_concurrency=concurrency).run()
            stack.close()
            spent = time.process_time() - begun
            return spent, [entry.reward for entry in store.entries.values()]

    logging.raiseExceptions = False
    with TemporaryDirectory() as directory, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        run_dir = Path(directory)
        cold_s, rewards = asyncio.run(batch(run_dir / "cold", 1, events=True))
        reward = round(sum(rewards) / len(rewards), 6)
        if not repeats:
            return Measured(1000 * cold_s / len(tasks), _peak_mib(), reward)
        without: list[float] = []
        heard: list[float] = []
        for number in range(_ROUNDS):
            for events, spent in ((False, without), (True, heard)):
                part = run_dir / f"{number}-{events}"
                part.mkdir()
                cpu_s, _ = asyncio.run(batch(part, repeats, events))
                spent.append(1000 * cpu_s / (repeats * len(tasks)))
        peak_mib = _peak_mib()
        profiles: list[tuple[str, ...]] = []
        for events in (False, True):
            part = run_dir / f"profiled-{events}"
            part.mkdir()
            profile = cProfile.Profile()
            profile.enable()
            asyncio.run(batch(part, repeats, events))
            profile.disable()
            profiles.append(top_functions(profile))
    return Measured(
        cpu_ms=statistics.median(without),
        peak_mib=peak_mib,
        reward=reward,
        best_cpu_ms=min(without),
        best_events_cpu_ms=min(heard),
        profile=profiles[0],
        events_profile=profiles[1],
    )


_ROUNDS = 3


def top_functions(profile: cProfile.Profile, count: int = 12) -> tuple[str, ...]:
    """The functions with the most time of their own, with its share of the whole."""
    stats: Any = pstats.Stats(profile)
    total = sum(own for _, _, own, _, _ in stats.stats.values())
    found = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:count]
    return tuple(f"{100 * entry[2] / total:4.1f} %  {_named(where)}" for where, entry in found)


def _named(where: tuple[str, int, str]) -> str:
    file, line, function = where
    if file == "~":
        return function
    for marker in ("/site-packages/", "/src/", "/benchmarks/", "/lib/"):
        if marker in file:
            kept = marker[1:] if marker in ("/src/", "/benchmarks/") else ""
            file = kept + file.rsplit(marker, 1)[1]
            break
    return f"{file}:{line} {function}"


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
    return Measured(1000 * cpu_s / len(rewards), _peak_mib(), round(sum(rewards) / len(rewards), 6))


def _peak_mib() -> float:
    """The most memory this process has held; `ru_maxrss` would tell that of the process that started it, too."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "package"])
    parser.add_argument("domain")
    parser.add_argument("conversations", type=Path)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("repeats", type=int)
    args = parser.parse_args()
    if args.side == "package":
        measured = run_package(args.domain, args.conversations, args.concurrency)
    else:
        measured = run_ours(args.domain, args.conversations, args.concurrency, args.repeats)
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
