"""A new environment and the score of one simulation, ours beside the package's, in one process.

CPU time, the best of several rounds on both sides; gold runs of each domain's base tasks. What is done once per
process (reading the data) or once per task (its initial state, its gold state) is done before the clock starts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rows import Row
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.environment import Environment, replayed
from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, UserMessage
from tau2_fleet.evaluation.reward import evaluate

GOALS: dict[str, float | None] = {"mock": None, "retail": 100.0, "airline": 100.0, "telecom": None}
"""How many times cheaper than the package's an environment and a score are meant to be, where its data is large."""


def rows(*, quick: bool) -> list[Row]:
    """Time and memory of an environment, time of a live and of a replayed score, in all domains (quick: no airline)."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    table: list[Row] = []
    for name, goal in GOALS.items():
        if quick and name == "airline":
            continue  # the package takes a second for each of its scores
        table += _domain_rows(load_domain(name), goal, tasks_taken=3, rounds=1 if quick else 3)
    return table


def _domain_rows(domain: LocalDomain, goal: float | None, tasks_taken: int, rounds: int) -> list[Row]:
    from tau2.data_model.simulation import SimulationRun
    from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation
    from tau2.registry import registry

    # Those with the most actions, so that scoring them is work.
    tasks = sorted(domain.tasks(), key=lambda task: -len(_gold(task)))[:tasks_taken]
    played = {task.id: asyncio.run(_played(domain, task)) for task in tasks}
    runs = {
        task.id: SimulationRun(
            id="", task_id=task.id, start_time="", end_time="", duration=0, termination_reason="user_stop",
            messages=played[task.id][1],
        )
        for task in tasks
    }  # fmt: skip
    construct = registry.get_env_constructor(domain.name)

    def their_environment(task: Task) -> Any:
        environment, start = construct(), task.initial_state
        environment.set_state(
            initialization_data=start.initialization_data if start is not None else None,
            initialization_actions=start.initialization_actions if start is not None else None,
            message_history=(start.message_history if start is not None else None) or [],
        )
        return environment

    def their_score(task: Task) -> float:
        info = evaluate_simulation(runs[task.id], task, EvaluationType.ALL, False, domain.name)
        return float(info.reward)

    async def live_score(task: Task) -> float:
        environment, messages = played[task.id]
        return evaluate(task, messages, "user_stop", await environment.final_state()).reward

    async def replayed_score(task: Task) -> float:
        environment = await replayed(domain.prepare(task), played[task.id][1])
        return evaluate(task, played[task.id][1], "user_stop", await environment.final_state()).reward

    def driven(score: Callable[[Task], Any]) -> Callable[[Task], float]:
        """The score without an event loop around each call: nothing in it waits."""

        def run(task: Task) -> float:
            try:
                score(task).send(None)
            except StopIteration as done:
                return float(done.value)
            raise AssertionError("scoring a gold run waits for nothing")

        return run

    ours = {"live": driven(live_score), "replayed": driven(replayed_score)}
    for task in tasks:
        rewards = {score(task) for score in (their_score, *ours.values())}
        if len(rewards) != 1:
            raise AssertionError(f"{domain.name}/{task.id}: rewards differ: {rewards}")

    def time_ours(action: Callable[[Task], Any]) -> float:
        return _cpu_ms(action, tasks, rounds + 2, repeats=50)

    def time_theirs(action: Callable[[Task], Any]) -> float:
        return _cpu_ms(action, tasks, rounds, repeats=1)

    place = f"environment/{domain.name}"
    scoring = time_theirs(their_score)
    return [
        Row(
            f"{place}/time",
            time_ours(domain.environment),
            time_theirs(their_environment),
            "ms",
            guarded=True,
            goal=goal,
        ),
        Row(f"{place}/memory", _kib(domain.environment, tasks), _kib(their_environment, tasks[:1]), "KiB", goal=goal),
        Row(f"{place}/score", time_ours(ours["live"]), scoring, "ms", guarded=True, goal=goal),
        Row(f"{place}/score a recorded run", time_ours(ours["replayed"]), scoring, "ms"),
    ]


def _gold(task: Task) -> list[Any]:
    criteria = task.evaluation_criteria
    return list((criteria.actions if criteria is not None else None) or [])


async def _played(domain: LocalDomain, task: Task) -> tuple[Environment, list[Message]]:
    """An environment after the task's gold actions, and the trajectory."""
    environment = domain.environment(task)
    messages: list[Message] = list(
        (task.initial_state.message_history if task.initial_state is not None else None) or []
    )
    for number, action in enumerate(_gold(task)):
        call = ToolCall(id=str(number), name=action.name, arguments=action.arguments, requestor=action.requestor)
        kind = AssistantMessage if action.requestor == "assistant" else UserMessage
        messages += [kind(role=action.requestor, tool_calls=[call]), await environment.respond(call)]
        environment.sync()
    facts = (task.evaluation_criteria.communicate_info if task.evaluation_criteria is not None else None) or []
    messages.append(AssistantMessage(role="assistant", content="; ".join(["Done", *facts])))
    messages.append(UserMessage(role="user", content="###STOP###"))
    return environment, messages


def _cpu_ms(action: Callable[[Task], Any], tasks: Sequence[Task], rounds: int, repeats: int) -> float:
    """CPU milliseconds of one call, the best round."""
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        started = time.process_time()
        for _ in range(repeats):
            for task in tasks:
                action(task)
        best = min(best, time.process_time() - started)
    return 1000 * best / (repeats * len(tasks))


def _kib(make: Callable[[Task], Any], tasks: Sequence[Task]) -> float:
    """KiB that one environment keeps."""
    gc.collect()
    tracemalloc.start()
    kept = [make(task) for task in tasks]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / 1024 / len(kept)
