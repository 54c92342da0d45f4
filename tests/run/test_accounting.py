"""What events, records, summary and servers say of one run adds up."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.run.runs import records, run, summary

Events = dict[str, list[dict[str, Any]]]
Run = tuple[Path, Events]


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ten tasks of telecom and mock with experts and known latencies, no preflight among the tokens."""
    run_dir = tmp_path_factory.mktemp("timed") / "run"
    process = run(
        run_dir,
        "experiment=simulated",
        "domain=[mock,telecom]",
        "domain.telecom.tasks=small",
        "num_tasks=5",
        "experts=simulated",
        "server.simulated.call_expert_rate=0.3",
        "server.simulated.latency=fleet-h100",
        "server.simulated.latency_scale=0.05",
        "server.preflight=false",
        "agent.price={input: 1.0, output: 2.0}",
        "max_concurrency=10",
    )
    assert process.returncode == 0, process.stderr
    events: Events = defaultdict(list)
    for line in (run_dir / "profile.jsonl").read_bytes().splitlines():
        event = json.loads(line)
        events[event["type"]].append(event)
    return run_dir, events


def key(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["domain"], entry["task_id"], entry["trial"]


CALLS = ("llm_call", "expert_call", "user_sim", "evaluator")


def test_the_steps_of_a_simulation_add_up_to_its_duration(timed: Run):
    run_dir, events = timed
    total: Counter[tuple[str, str, int]] = Counter()
    for event in events["step_complete"]:
        total[key(event)] += event["total_duration_ms"]
    assert_shares([total[key(record)] / (record["duration_s"] * 1000) for record in records(run_dir)])


def assert_shares(shares: list[float]) -> None:
    """Parts are all of the whole; what a busy machine keeps one waiting between two of them belongs to none."""
    assert max(shares) == pytest.approx(1, abs=0.02)
    assert min(shares) > 0.9


def test_the_calls_and_tools_of_a_step_add_up_to_it_and_nothing_is_counted_twice(timed: Run):
    _, events = timed
    parts: Counter[tuple[tuple[str, str, int], int]] = Counter()
    for kind in (*CALLS, "tool_call"):
        for event in events[kind]:
            parts[key(event), event["step"]] += event["duration_ms"]
    whole: Counter[tuple[str, str, int]] = Counter()
    within: Counter[tuple[str, str, int]] = Counter()
    for event in events["step_complete"]:
        whole[key(event)] += event["total_duration_ms"]
    for (simulation, _), duration_ms in parts.items():
        within[simulation] += duration_ms
    assert_shares([within[simulation] / whole[simulation] for simulation in whole])
    for event in events["step_complete"]:
        assert parts[key(event), event["step"]] <= event["total_duration_ms"] + 0.001


def test_tool_call_events_are_the_trajectories_tool_messages(timed: Run):
    run_dir, events = timed
    counted = Counter(key(event) for event in events["tool_call"])
    in_messages = Counter(
        {key(record): sum(message["role"] == "tool" for message in record["messages"]) for record in records(run_dir)}
    )
    in_messages -= Counter({key(record): history(record) for record in records(run_dir)})
    assert +counted == +in_messages


def history(record: dict[str, Any]) -> int:
    """Tool messages that the task itself brings."""
    from tau2_fleet.benchmark.domains import load_domain

    task_set = "small" if record["domain"] == "telecom" else "base"
    (task,) = load_domain(record["domain"]).tasks(task_set, ids=[record["task_id"]])
    messages = (task.initial_state and task.initial_state.message_history) or []
    return sum(message.role == "tool" for message in messages)


def test_tokens_agree_in_events_records_summary_and_the_servers_own_metrics(timed: Run):
    run_dir, events = timed
    calls = [event for kind in CALLS for event in events[kind]]
    asked, answered = (sum(event[name] for event in calls) for name in ("input_tokens", "output_tokens"))
    usages = [usage for record in records(run_dir) for usage in record["usage_by_role"].values()]
    assert sum(usage["input_tokens"] for usage in usages) == asked > 0
    assert sum(usage["output_tokens"] for usage in usages) == answered > 0
    metrics = summary(run_dir)["metrics"]["overall"]
    assert (metrics["input_tokens"], metrics["output_tokens"]) == (asked, answered)
    last = {event["replica"]: event for event in events["replica_sample"]}
    assert sum(event["prompt_tokens"] for event in last.values()) == asked
    assert sum(event["generation_tokens"] for event in last.values()) == answered


def test_cost_agrees_in_events_records_and_summary_and_follows_the_price(timed: Run):
    run_dir, events = timed
    agents = [event for event in events["llm_call"] if event["cost_usd"]]
    expected = sum(event["input_tokens"] * 1e-6 + event["output_tokens"] * 2e-6 for event in events["llm_call"])
    in_records = sum(sum(record["cost_by_role"].values()) for record in records(run_dir))
    assert agents
    assert in_records == pytest.approx(expected)
    assert summary(run_dir)["metrics"]["overall"]["cost_usd"] == pytest.approx(expected)


def test_experts_have_events_of_their_own_outside_the_agents_time(timed: Run):
    run_dir, events = timed
    roles = Counter(call["role"] for record in records(run_dir) for call in record["calls"])
    experts = Counter(event["expert"] for event in events["expert_call"])
    assert sum(experts.values()) > 0
    assert experts == {role: count for role, count in roles.items() if role.startswith("expert-")}
    assert len(events["llm_call"]) == roles["agent"]
    assert len(events["user_sim"]) == roles["user"]


def test_every_simulation_is_over_once_in_the_events(timed: Run):
    run_dir, events = timed
    assert Counter(key(event) for event in events["simulation"]) == Counter(key(record) for record in records(run_dir))
