"""A whole run of the leaderboard's settings on servers that are short of context and particular about ids.

The agent is an adapter without a limit of its own beside its base, no answer's length is limited, and an expert refuses
ids of tool calls beyond 40 characters: everything is told apart, nothing is refused, and the score is the agent's.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.run.json_server import JsonHandler
from tests.run.runs import records, run, summary

CONTEXT = 6000
TALK = "I see, and I shall look into that at once, as soon as the one before it is through. " * 50
GOLD = {"user_id": "user_1", "title": "Important Meeting"}
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Servers(ThreadingHTTPServer):
    """The agent's server, the customer's and the expert's; what they answer follows from the session's turns alone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.turns: Counter[str] = Counter()
        self.room: list[int] = []
        """Tokens that were left for each answer of the agent."""
        self.refused: list[str] = []

    def reply(self, session: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        role = session.rpartition("/")[2]
        turn = self.turns[session]
        self.turns[session] += 1
        tokens = len(json.dumps([body["messages"], body.get("tools")])) // 4
        if role == "agent":
            self.room.append(CONTEXT - tokens)
            if tokens >= CONTEXT:
                return self.refusal("Input is too long for requested model.")
            said = self.agent(turn)
        elif role == "expert-1":
            calls = [call["id"] for message in body["messages"] for call in message.get("tool_calls") or ()]
            results = [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]
            if not all(map(_ID.fullmatch, calls + results)):
                return self.refusal("Invalid 'messages[3].tool_calls[0].id': string too long. Expected 40, got 46.")
            said = call_of("create_task", GOLD)
        else:
            done = "Done" in (body["messages"][-1]["content"] or "")
            said = {"content": "###STOP###" if done else f"{turn}. {TALK}"}
        choice = {"index": 0, "message": {"role": "assistant", "content": None, **said}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": tokens, "completion_tokens": 20}}

    def agent(self, turn: int) -> dict[str, Any]:
        if turn == 0:
            return call_of("get_users", {})
        if turn < 8:
            return {"content": f"{turn}. {TALK}"}
        return call_of("call_expert", {"expert": "expert-1"}) if turn == 8 else {"content": "Done."}

    def refusal(self, message: str) -> tuple[int, dict[str, Any]]:
        self.refused.append(message)
        return 400, {"error": {"message": message}}


def call_of(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"tool_calls": [{"id": f"call_{name}".ljust(46, "0"), "type": "function", "function": function}]}


class Handler(JsonHandler):
    server: Servers

    def do_GET(self) -> None:
        base = {"id": "base", "root": "/models/base", "parent": None, "max_model_len": CONTEXT}
        adapter = {"id": "adapter", "root": "/adapters/a", "parent": "base", "max_model_len": None}
        self.answer(200, {"data": [base, adapter]})

    def do_POST(self) -> None:
        self.answer(*self.server.reply(self.headers["X-Session-ID"], self.read_json()))


def experiment(url: str) -> dict[str, Any]:
    remote = {"provider": "openai", "model": "m", "base_url": f"{url}/v1"}
    return {
        "defaults": [
            "leaderboard",
            {"override /domain": "mock"},
            {"override /server": "external"},
            {"override /user_llm": "vllm"},
            {"override /judge": "none"},
            {"override /wandb": "disabled"},
        ],
        "task_ids": ["create_task_1"],
        "num_trials": 2,
        "agent": {"model": "adapter"},
        "server": {"endpoints": [url], "preflight": False},
        "user_llm": {"model": "base", "pool": {"name": "customer", "endpoints": [url]}},
        "experts": {"expert_1": {"llm": remote, "strength": "better"}},
        "limits": {"outage_s": 0},
    }


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Servers]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "experiment").mkdir()
    with Servers() as servers:
        threading.Thread(target=servers.serve_forever, daemon=True).start()
        content = yaml.safe_dump(experiment(f"http://127.0.0.1:{servers.server_port}"), sort_keys=False)
        (folder / "experiment" / "odd.yaml").write_text(f"# @package _global_\n{content}")
        process = run(folder / "run", f"--config-dir={folder}", "experiment=odd")
        servers.shutdown()
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run", servers


def test_no_answer_lacks_room_and_nothing_is_refused(odd: tuple[Path, Servers]) -> None:
    run_dir, servers = odd
    assert servers.refused == []
    assert min(servers.room) >= CONTEXT // 4
    assert summary(run_dir)["replies"]["agent"]["history_cut"] > 0


def test_the_expert_takes_its_turn_and_the_score_is_whole(odd: tuple[Path, Servers]) -> None:
    run_dir, _ = odd
    assert [record["reward"] for record in records(run_dir)] == [1.0, 1.0]
    for record in records(run_dir):
        authors = [(message.get("raw_data") or {}).get("author") for message in record["messages"]]
        assert authors.count("expert-1") == 1
    assert "expert_failed" not in str(summary(run_dir)["replies"])
