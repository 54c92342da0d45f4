"""Zero-latency models for both runners: the gold conversation of every task, recorded once, then replayed.

A reply is looked up by task, role and turn, so that the models themselves cost next to nothing on
either side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.llm.types import CallStats, ChatRequest, Reply, ToolCallText, Usage
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simserver.gold_policy import next_turn
from tau2_fleet.simserver.policy_words import Situation, parse_session
from tau2_fleet.simserver.scripts import Scripts, read_script_file, write_script_file
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import Simulation, SimulationJob

Line = dict[str, Any]
"""{"text": ..., "calls": [[id, name, arguments], ...]}"""
Conversations = dict[str, dict[str, list[Line]]]
"""Task id, role, turn."""


class PolicyModel:
    """The simulated servers' policy without a server."""

    name = "policy"

    def __init__(self, scripts: Scripts, keep: Conversations) -> None:
        self.scripts = scripts
        self.keep = keep

    async def complete(self, request: ChatRequest) -> Reply:
        session = parse_session(request.session)
        assert session is not None
        turn = next_turn(
            Situation(
                session=session,
                role=session.role,
                script=self.scripts.get(session.domain, session.quoted_task_id),
                messages=[message.as_dict() for message in request.messages],
                tools={
                    schema["function"]["name"]: schema["function"]
                    for schema in (request.tools.schemas if request.tools else ())
                },
            )
        )
        line = {"text": turn.text, "calls": [[call.id, call.name, call.arguments] for call in turn.calls]}
        self.keep.setdefault(unquote(session.quoted_task_id), {}).setdefault(session.role, []).append(line)
        return _reply(line)

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


class ReplayModel:
    """Says the recorded lines again."""

    name = "replay"

    def __init__(self, conversations: Conversations) -> None:
        self.conversations = conversations
        self.turns: dict[str, int] = {}
        self.tasks: dict[str, list[Line]] = {}

    async def complete(self, request: ChatRequest) -> Reply:
        session = request.session
        lines = self.tasks.get(session)
        if lines is None:
            _, _, task_id, _, role = session.split("/")
            lines = self.tasks[session] = self.conversations[unquote(task_id)][role]
        turn = self.turns[session] = self.turns.get(session, -1) + 1
        if turn + 1 == len(lines):  # forgotten, so that a long run's memory is not the models'
            del self.turns[session], self.tasks[session]
        return _reply(lines[turn])

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


def _reply(line: Line) -> Reply:
    stats = CallStats("scripted", "vllm", attempts=1, usage=Usage(1000, 50, 0))
    return Reply(line["text"], tuple(ToolCallText(*call) for call in line["calls"]), stats)


def record(domain: Domain, task_ids: Sequence[str] | None = None) -> Conversations:
    """SimulationSettings every task's gold side once and keep what was said."""
    tasks = domain.tasks("base", ids=task_ids)
    conversations: Conversations = {}
    with TemporaryDirectory() as directory:
        path = Path(directory) / "tasks.json"
        write_script_file(path, {domain.name: tasks})
        model = PolicyModel(read_script_file(path), conversations)
        play = SimulationSettings("bench", Roles(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS))
        stage = DomainContext(domain, play)

        async def all_tasks() -> None:
            for task in tasks:
                await Simulation(
                    stage, task, SimulationJob(SimulationKey(domain.name, task.id, 0), 0, 0), lambda *_: None
                ).run()

        asyncio.run(all_tasks())
    return conversations


def save(conversations: Conversations, path: Path) -> None:
    path.write_text(json.dumps(conversations))


def load(path: Path) -> Conversations:
    return json.loads(path.read_text())  # type: ignore[no-any-return]
