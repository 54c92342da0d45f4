"""A whole run whose agent hands turns to every expert, to one that is not there and to one that always fails."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.run.json_server import JsonHandler
from tests.run.runs import records, run, summary
from tests.run.test_run import NO_GOLD_ACTIONS

PRICES = {"agent": (1.0, 2.0), "expert-1": (1.25, 10.0), "expert-2": (0.25, 2.0), "expert-3": (0.5, 1.0)}
"""USD per million tokens, in and out."""
CALLS = ("llm_call", "expert_call", "user_sim")


class UselessExpert(JsonHandler):
    """A server that looks sound and whose model either refuses a request or passes the turn on, by turns."""

    turns: Iterator[bool]

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "useless", "max_model_len": 32768}]})

    def do_POST(self) -> None:
        self.read_json()
        if next(self.turns):
            self.answer(400, {"error": {"message": "I would rather not"}})
            return
        function = {"name": "call_expert", "arguments": '{"expert": "expert-1"}'}
        call = {"id": "1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 1000, "completion_tokens": 20}
        choice = {"message": message, "finish_reason": "tool_calls"}
        self.answer(200, {"choices": [choice], "usage": usage})


def experiment(port: int) -> dict[str, Any]:
    """The smoke run with experts that cost something; expert-3 is the useless server on this port."""
    price = {name: {"input": given, "output": taken} for name, (given, taken) in PRICES.items()}
    pool = {"name": "useless", "endpoints": [f"http://127.0.0.1:{port}"]}
    useless = {"provider": "vllm", "model": "useless", "pool": pool, "price": price["expert-3"]}
    return {
        "defaults": ["smoke", {"override /experts": "simulated"}],
        "num_trials": 6,
        "max_concurrency": 20,
        "agent": {"price": price["agent"]},
        "experts": {
            # The simulated agent calls whatever expert its tool's description names.
            "expert_1": {"llm": {"price": price["expert-1"]}, "strength": "better than expert-4"},
            "expert_2": {"llm": {"price": price["expert-2"]}},
            "expert_3": {"llm": useless},
        },
        "server": {
            "preflight": False,
            "simulated": {"call_expert_rate": 0.7, "latency": "fleet-h100", "latency_scale": 0.02},
        },
    }


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routed")
    handler = type("Handler", (UselessExpert,), {"turns": itertools.cycle([True, False])})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "experiment").mkdir()
        content = yaml.safe_dump(experiment(server.server_port), sort_keys=False)
        (folder / "experiment" / "routed.yaml").write_text(f"# @package _global_\n{content}")
        process = run(folder / "run", f"--config-dir={folder}", "experiment=routed")
        server.shutdown()
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run"


def events(run_dir: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run_dir / "profile.jsonl").read_bytes().splitlines()]
    return [event for event in found if event["type"] in CALLS]


def turns(run_dir: Path) -> list[dict[str, Any]]:
    """What the record says of each turn of the agent's side."""
    return [
        message["raw_data"]
        for record in records(run_dir)
        for message in record["messages"]
        if message["role"] == "assistant" and (message["raw_data"] or {}).get("author")
    ]


def test_every_simulation_scores_as_without_experts(routed: Path):
    rewards = {(record["task_id"], record["trial"]): record["reward"] for record in records(routed)}
    assert len(rewards) == 54
    assert {task for (task, _), reward in rewards.items() if reward != 1.0} == {NO_GOLD_ACTIONS}


def test_the_record_names_the_tools_that_each_role_was_offered(routed: Path):
    texts = {
        line["digest"]: line["text"] for line in map(json.loads, (routed / "prompts.jsonl").read_text().splitlines())
    }
    for record in records(routed):
        offered = {
            role: {tool["function"]["name"] for tool in json.loads(texts[digest])}
            for role, digest in record["tools"].items()
        }
        assert offered.keys() == {"agent", "expert-1", "expert-2", "expert-3"}
        assert "call_expert" in offered["agent"]
        assert offered["expert-1"] == offered["expert-2"] >= offered["agent"] - {"call_expert"}


def test_turns_are_the_agents_or_a_willing_experts_and_all_failures_are_recorded(routed: Path):
    said = turns(routed)
    authors = Counter(about["author"] for about in said)
    calls = Counter(call["role"] for record in records(routed) for call in record["calls"])
    assert set(authors) == {"agent", "expert-1", "expert-2"}
    assert {name: authors[name] for name in ("expert-1", "expert-2")} == {
        name: calls[name] for name in ("expert-1", "expert-2")
    }
    failed = sum(about.get("failed_expert_calls", 0) for about in said)
    assert failed > calls["expert-3"] >= 2, "both of its failings, and calls for one that is not there"
    assert calls["agent"] == len(said) + failed


def test_call_expert_is_in_no_trajectory(routed: Path):
    assert "call_expert" not in json.dumps([record["messages"] for record in records(routed)])
    results = json.loads((routed / "mock.json").read_text())
    assert "call_expert" not in json.dumps([simulation["messages"] for simulation in results["simulations"]])


def test_costs_follow_the_prices_and_add_up_from_calls_to_turns_records_results_and_summary(routed: Path):
    results = {item["id"]: item for item in json.loads((routed / "mock.json").read_text())["simulations"]}
    for record in records(routed):
        spent: Counter[str] = Counter()
        for call in record["calls"]:
            given, taken = PRICES.get(call["role"], (0.0, 0.0))
            usage = call["usage"]
            assert call["cost_usd"] == pytest.approx(
                (usage["input_tokens"] * given + usage["output_tokens"] * taken) / 1e6
            )
            spent[call["role"]] += call["cost_usd"]
        assert record["cost_by_role"] == pytest.approx(spent)
        assert results[record["id"]]["agent_cost"] == pytest.approx(sum(spent.values()) - spent["user"])
        in_turns = sum(message["cost"] or 0.0 for message in record["messages"] if message["role"] == "assistant")
        assert in_turns == pytest.approx(spent["agent"] + spent["expert-1"] + spent["expert-2"])


def test_the_summary_splits_calls_tokens_and_cost_by_role_and_model(routed: Path):
    told = summary(routed)
    split = told["spending"]
    assert set(split) == {"agent", "user", "expert-1", "expert-2", "expert-3"}
    assert set(split["expert-3"]) == {"useless"}
    overall = told["metrics"]["overall"]
    for figure in ("input_tokens", "output_tokens", "cost_usd"):
        parts = [figures[figure] for models in split.values() for figures in models.values()]
        assert min(sum(parts), overall[figure]) > 0
        assert sum(parts) == pytest.approx(overall[figure])
    for role, models in split.items():
        calls = [call for record in records(routed) for call in record["calls"] if call["role"] == role]
        assert sum(figures["calls"] for figures in models.values()) == len(calls)
        assert sum(figures["cost_usd"] for figures in models.values()) == pytest.approx(
            sum(call["cost_usd"] for call in calls)
        )


def test_an_experts_time_is_its_own(routed: Path):
    """Calls of one simulation follow each other, so that together they fit into it only if none holds another."""
    in_events: Counter[str] = Counter()
    for event in events(routed):
        in_events[event.get("expert") or event["type"]] += event["duration_ms"]
    in_records: Counter[str] = Counter()
    names = {"agent": "llm_call", "user": "user_sim"}
    for record in records(routed):
        durations = [call["duration_ms"] for call in record["calls"]]
        assert sum(durations) <= record["duration_s"] * 1000
        for call in record["calls"]:
            in_records[names.get(call["role"], call["role"])] += call["duration_ms"]
    assert in_events == pytest.approx(in_records)
    assert min(in_records.values()) > 0
