"""A simulation's own parts in microseconds of CPU, beside the package's where it has the part; none may cost 1 ms.

And the cost of a step against the length of the history: the same bytes as 10 and as 200 messages, through the whole
path from the conversation to the socket and back. A new environment and a score are in `environment`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.requests import server
from benchmarks.rows import Row
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, Task, ToolCall
from tau2_fleet.llm.types import CallStats, ChatMessage, ChatRequest, Reply, Usage
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.simulation.conversation import Conversation, Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
from tau2_fleet.simulation.parties import make_parties
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import Simulation, SimulationJob

LIMIT_US = 1000.0
DOMAINS = ("retail", "airline", "telecom")
_TASKS = 4
_STEPS = 40
_HISTORY_BYTES = 16_000
_STORED = 100
"""Simulations in the package's results file when one more is stored."""


def rows(*, quick: bool) -> list[Row]:
    """All parts in all domains."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    rounds = 3 if quick else 7
    table: list[Row] = []
    for name in DOMAINS:
        domain = load_domain(name)
        table.append(_tool_call(domain, rounds))
        table.append(_step(domain, rounds))
    table += _storing(load_domain("retail"), rounds)
    table.append(_event(rounds))
    table.append(_length_of_history(rounds))
    return table


def _tool_call(domain: Domain, rounds: int) -> Row:
    """The gold actions of some tasks, each in a new environment, which is made outside the time."""
    from tau2.registry import registry

    tasks = sorted(domain.tasks(), key=lambda task: -len(_gold(task)))[:_TASKS]
    calls = {task.id: _gold(task) for task in tasks}
    construct = registry.get_env_constructor(domain.name)

    def ours() -> float:
        spent = 0.0
        for task in tasks:
            environment = domain.environment(task)
            with _timed() as seconds:
                for call in calls[task.id]:
                    _driven(environment.respond(call))
            spent += seconds[0]
        return spent

    def theirs() -> float:
        spent = 0.0
        for task in tasks[:2]:
            environment = construct()
            start = task.initial_state
            environment.set_state(
                initialization_data=start.initialization_data if start is not None else None,
                initialization_actions=start.initialization_actions if start is not None else None,
                message_history=[],
            )
            with _timed() as seconds:
                for call in calls[task.id]:
                    environment.get_response(call)
            spent += seconds[0]
        return spent

    count = sum(len(found) for found in calls.values())
    count_theirs = sum(len(calls[task.id]) for task in tasks[:2])
    _ = ours()
    us = 1e6 * min(ours() for _ in range(10 * rounds)) / count
    theirs_us = 1e6 * min(theirs() for _ in range(2)) / count_theirs
    return Row(f"parts/{domain.name}/tool call", us, theirs_us, "µs", guarded=True, limit=LIMIT_US)


class _Talker:
    """Says the same to everything."""

    name = "talker"

    async def complete(self, request: ChatRequest) -> Reply:
        return Reply("Tell me more.", (), CallStats("talker", "vllm", attempts=1, usage=Usage(1000, 5, 0)))

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


def _step(domain: Domain, rounds: int) -> Row:
    """A step of a conversation of texts with the same zero-latency models on both sides."""
    import tau2.agent.llm_agent as agents
    import tau2.user.user_simulator as users
    from tau2.orchestrator.orchestrator import Orchestrator
    from tau2.registry import registry

    task = domain.tasks()[0]
    talker = _Talker()
    rules = Rules(stop_tokens=prompts.STOP_TOKENS, max_steps=_STEPS)
    context = DomainContext(domain, SimulationSettings("bench", Roles(agent=talker, user=talker), rules))

    def ours() -> float:
        simulation = Simulation(
            context, task, SimulationJob(SimulationKey(domain.name, task.id, 0), 1, 1), lambda *_: None
        )
        sides, environment = make_parties(context, task, simulation.sessions), domain.environment(task)
        conversation = Conversation(sides.agent, sides.user, environment, rules, simulation.sessions.calls)
        with _timed() as seconds:
            _driven(conversation.run([], context.greeting))
        return seconds[0]

    def generate(*_: Any, **__: Any) -> AssistantMessage:
        return AssistantMessage(role="assistant", content="Tell me more.", cost=0.0, usage=None)

    before = agents.generate, users.generate
    agents.generate = users.generate = generate
    try:
        environment = registry.get_env_constructor(domain.name)()
        user_tools = environment.get_user_tools() if environment.user_tools is not None else None

        def theirs() -> float:
            agent = agents.LLMAgent(environment.get_tools(), environment.get_policy(), llm="none", llm_args={})
            user = users.UserSimulator(tools=user_tools, instructions=str(task.user_scenario), llm="none", llm_args={})
            orchestrator = Orchestrator(domain.name, agent, user, environment, task, max_steps=_STEPS)
            orchestrator.initialize()
            with _timed() as seconds:
                for _ in range(_STEPS):
                    orchestrator.step()
            return seconds[0]

        _ = ours(), theirs()
        us = 1e6 * min(ours() for _ in range(5 * rounds)) / _STEPS
        theirs_us = 1e6 * min(theirs() for _ in range(2 * rounds)) / _STEPS
    finally:
        agents.generate, users.generate = before
    return Row(f"parts/{domain.name}/step", us, theirs_us, "µs", limit=LIMIT_US)


def _storing(domain: Domain, rounds: int) -> list[Row]:
    """The record as a line in the file, and as one more entry of the package's results file."""
    from tau2_fleet.record.store import Store

    record = _record(domain)
    with TemporaryDirectory() as directory:
        with Store(Path(directory)) as store:
            us = _best_us(lambda: store.append(record), rounds, 300)
        theirs_us = _their_storing(Path(directory) / "results.json", record)
    setup_us = _best_us(lambda: _prepared(domain), rounds, 100)
    return [
        Row("parts/retail/storing", us, theirs_us, "µs", f"tau2 package, {_STORED} stored before", limit=LIMIT_US),
        Row("parts/retail/environment, prompts and roles", setup_us, None, "µs", limit=LIMIT_US),
    ]


def _record(domain: Domain) -> Record:
    """Of a conversation played by the gold side."""
    from benchmarks.scripted import ReplayModel, record

    task = domain.tasks()[0]
    model = ReplayModel(record(domain, [task.id]))
    context = DomainContext(
        domain,
        SimulationSettings("bench", Roles(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS)),
    )
    return asyncio.run(
        Simulation(context, task, SimulationJob(SimulationKey(domain.name, task.id, 0), 1, 1), lambda *_: None).run()
    )


def _their_storing(path: Path, record: Record) -> float:
    """What the package's `run_tasks` does after each simulation: the file read, one entry more, the file written."""
    import json

    from tau2_fleet.record.results import as_simulation_run

    run = as_simulation_run(
        {
            name: getattr(record, name)
            for name in (
                "termination_reason", "reward_info", "error", "cost_by_role", "id", "task_id", "ended", "started",
                "duration_s", "messages", "trial", "seed",
            )
        }
    )  # fmt: skip
    text = json.dumps({"simulations": [run] * _STORED}, indent=2, default=str)
    best = float("inf")
    for _ in range(2):
        path.write_text(text)
        with _timed() as seconds:
            with path.open() as file:
                stored = json.load(file)
            stored["simulations"].append(run)
            with path.open("w") as file:
                json.dump(stored, file, indent=2, default=str)
        best = min(best, seconds[0])
    return 1e6 * best


_STAGES: dict[str, DomainContext] = {}


def _prepared(domain: Domain) -> object:
    """Everything before the first message: the environment, both prompts, both roles."""
    talker = _Talker()
    context = _STAGES.setdefault(
        domain.name, DomainContext(domain, SimulationSettings("bench", Roles(agent=talker, user=talker)))
    )
    task = domain.tasks()[0]
    simulation = Simulation(context, task, SimulationJob(SimulationKey(domain.name, task.id, 0), 1, 1), lambda *_: None)
    return domain.environment(task), make_parties(context, task, simulation.sessions)


def _event(rounds: int) -> Row:
    """A model call told to all that listens at log_level=PROFILE: profile, log, trace, progress."""
    from tau2_fleet.display.progress import Mode, Progress
    from tau2_fleet.telemetry.events import LLMCall, Scope, current_scope, emit
    from tau2_fleet.telemetry.levels import USER_JUDGE
    from tau2_fleet.telemetry.logs import setup
    from tau2_fleet.telemetry.recorder import Recorder
    from tau2_fleet.telemetry.trace import TraceWriter

    def tell() -> None:
        emit(
            LLMCall(
                type="llm_call", model="model", call_type="vllm", duration_ms=1234.5, queue_ms=0.1, input_tokens=4000,
                output_tokens=30, cached_tokens=3900, cost_usd=0.0, attempts=1, has_tool_calls=True, step=3,
                replica="agent/0",
            )
        )  # fmt: skip

    token = current_scope.set(Scope("retail", "12", 0, 3))
    best = float("inf")
    try:
        with TemporaryDirectory() as directory:
            for number in range(rounds):
                run_dir = Path(directory) / str(number)
                run_dir.mkdir()
                # USER_JUDGE and above go to the file alone; PROFILE lines would go to this benchmark's output.
                with setup(run_dir, USER_JUDGE) as logs, _timed() as seconds:
                    trace = TraceWriter(run_dir / "trace.json")
                    progress = Progress({"retail": 1}, mode=Mode.off)
                    with Recorder(run_dir, logs=logs, progress=progress, writers=[trace.write]):
                        for _ in range(3000):
                            tell()
                    trace.close()
                best = min(best, seconds[0] / 3000)
    finally:
        current_scope.reset(token)
    return Row("parts/event", 1e6 * best, None, "µs", limit=LIMIT_US)


def _length_of_history(rounds: int) -> Row:
    """CPU of a request in a conversation of 10 and of 200 messages with the same bytes."""
    with server(0.0) as url:
        found = {length: asyncio.run(_request_us(url, length, rounds)) for length in (10, 50, 200)}
    return Row(
        "parts/a turn at 200 messages",
        found[200],
        found[10],
        "µs",
        "the same bytes in 10 messages",
        guarded=True,
        goal=0.8,
        limit=LIMIT_US,
        detail={"us by messages": {str(length): round(us, 1) for length, us in found.items()}},
    )


async def _request_us(url: str, length: int, rounds: int) -> float:
    """Microseconds of a turn: from the history to the socket and back, in a conversation that grows."""
    from benchmarks.requests import pool
    from tau2_fleet.llm.call_log import CallLog
    from tau2_fleet.llm.factory import build
    from tau2_fleet.llm.http import HttpPool
    from tau2_fleet.llm.session import ModelSession

    turns, conversations = 5, 40
    settings, router, tools = pool(url)
    framed = len(ChatMessage("assistant", "").encoded) + 1
    said = "x" * (_HISTORY_BYTES // length - framed)
    spent: list[float] = []
    async with HttpPool() as http:
        model = build(settings, name="bench", http=http, router=router)
        for number in range(conversations * rounds):
            system = ChatMessage("system", "Help the customer. " * 50)
            session_id = f"bench/retail/{number}/0/agent"
            session = ModelSession("agent", model, session_id, system, tools, seed=1, calls=CallLog())
            session.history = [ChatMessage(("user", "assistant")[index % 2], said) for index in range(length - 2)]
            await session.ask()
            with _timed() as seconds:
                for turn in range(turns):
                    session.history.append(ChatMessage("user", f"And then? {turn}"))
                    reply = await session.ask()
                    session.history.append(ChatMessage("assistant", reply.text, reply.tool_calls))
            spent.append(seconds[0] / turns)
    spent.sort()
    return 1e6 * spent[len(spent) // 4]


def _gold(task: Task) -> list[ToolCall]:
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria is not None else None) or []
    return [
        ToolCall(id=str(number), name=action.name, arguments=action.arguments, requestor=action.requestor)
        for number, action in enumerate(actions)
    ]


def _driven(waiting: Any) -> Any:
    """The result of a coroutine that waits for nothing, without an event loop around it."""
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """CPU seconds of the block, as the list's only entry."""
    seconds = [0.0]
    begun = time.process_time()
    yield seconds
    seconds[0] = time.process_time() - begun


def _best_us(action: Callable[[], object], rounds: int, repeats: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        with _timed() as seconds:
            for _ in range(repeats):
                action()
        best = min(best, seconds[0] / repeats)
    return 1e6 * best
