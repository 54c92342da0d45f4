"""Makes run directories as a real run leaves them: records and events of the same simulations, all numbers known."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_fleet.telemetry.events import (
    Event,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    RunMark,
    Scope,
    SimulationDone,
    StepComplete,
    ToolCallDone,
)
from tau2_fleet.telemetry.profile_writer import encode

STARTED = 1_766_484_900.0
"""Epoch second at which every made run begins."""

OWN_MS = 5.0
"""Of each simulation: time that is neither a model's nor a tool's."""


@dataclass
class MadeRun:
    """What was written, for the tests to compare with."""

    directory: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def _message(role: str, index: int, **fields: Any) -> dict[str, Any]:
    message = {
        "role": role,
        "content": None,
        "turn_idx": index,
        "timestamp": f"2025-12-23T10:15:{index % 60:02d}.000000",
        **({"cost": 0.0, "usage": None, "raw_data": None, "tool_calls": None} if role != "tool" else {}),
    }
    return message | fields


def write_run(
    directory: Path, domains: dict[str, int] | None = None, *, seed: int = 1, trials: int = 1, concurrency: int = 8
) -> MadeRun:
    """Write simulations.jsonl, prompts.jsonl, profile.jsonl and summary.json.

    Task `i` of a domain fails when `i % 3 == 2`; every fifth simulation consults an expert.
    """
    directory.mkdir(parents=True, exist_ok=True)
    run = MadeRun(directory)
    dice = random.Random(seed)
    free_at = [STARTED] * concurrency
    number = 0
    for domain, count in (domains or {"retail": 6, "airline": 4}).items():
        for task in range(count):
            for trial in range(trials):
                number += 1
                slot = min(range(concurrency), key=free_at.__getitem__)
                free_at[slot] = _simulation(run, dice, domain, str(task), trial, number, free_at[slot])
    ended = max(free_at)
    _servers(run, dice, ended)
    run.events.sort(key=lambda event: event.time)
    marks = [RunMark("start"), RunMark("end")]
    marks[0].time, marks[1].time = STARTED, ended
    run.events = [marks[0], *run.events, marks[1]]
    (directory / "profile.jsonl").write_bytes(b"".join(encode(event) for event in run.events))
    (directory / "simulations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in run.records))
    prompts = [
        {"digest": "abc", "text": "<instructions>\nbe kind\n</instructions>"},
        {"digest": "def", "text": "you are Yusuf"},
    ]
    (directory / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    passed = sum(record["reward"] for record in run.records)
    (directory / "summary.json").write_text(json.dumps({"overall": {"pass_1": passed / len(run.records)}}))
    return run


def _simulation(
    run: MadeRun, dice: random.Random, domain: str, task: str, trial: int, number: int, begun: float
) -> float:
    scope = Scope(domain, task, trial, 1000 + number)
    now = begun
    messages: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    events: list[Event] = []
    replica = f"agent/{number % 2}"

    def add(event: Event) -> None:
        event.scope, event.time = scope, now
        events.append(event)

    def call(kind: str, role: str, step: int, has_tool_calls: bool, mean_ms: float) -> None:
        nonlocal now
        duration = dice.lognormvariate(0, 0.5) * mean_ms
        now += duration / 1000
        model = {"llm_call": "nemotron", "user_sim": "gpt-5", "expert_call": "gpt-5", "evaluator": "gpt-5"}[kind]
        cost = 0.0 if kind == "llm_call" else 0.001 * step + 0.002
        used = dice.randint(1500, 6000), dice.randint(20, 200)
        call_type = "vllm" if kind == "llm_call" else "openai"
        usage = {"input_tokens": used[0], "output_tokens": used[1], "cached_tokens": used[0] // 2}
        event = LLMCall(
            kind,
            model,
            call_type,
            duration,
            duration / 10,
            used[0],
            used[1],
            used[0] // 2,
            cost,
            1,
            has_tool_calls,
            step,
        )
        event.replica = replica if kind == "llm_call" else None
        event.connect_ms = duration / 50 if step == 0 else None
        event.expert = role if kind == "expert_call" else None
        add(event)
        calls.append({"role": role, "step": step, "model": model, "duration_ms": duration, "cost_usd": cost,
                      "usage": usage})  # fmt: skip

    messages.append(_message("assistant", 0, content="Hi! How can I help you today?"))
    failed = int(task) % 3 == 2
    for turn in range(3):
        step = turn * 4
        step_begun = now
        call("user_sim", "user", step, False, 900)
        messages.append(_message("user", len(messages), content=f"Please change order #W{number}{turn}"))
        add(StepComplete((now - step_begun) * 1000, "agent", "user", step))
        step_begun = now
        call("llm_call", "agent", step + 1, True, 400)
        raw = None
        if number % 5 == 0 and turn == 1:
            call("expert_call", "expert-1", step + 1, True, 8000)
            raw = {"author": "expert-1"}
        name = "get_order_details" if turn < 2 else "modify_order"
        tool_call = {
            "id": f"c{turn}",
            "name": name,
            "arguments": {"order_id": f"#W{number}{turn}"},
            "requestor": "assistant",
        }
        messages.append(_message("assistant", len(messages), tool_calls=[tool_call], raw_data=raw))
        add(StepComplete((now - step_begun) * 1000, "user", "agent", step + 1))
        step_begun = now
        now += 0.002
        add(ToolCallDone(name, "assistant", 2.0, failed and turn == 2, step + 2))
        result = "Error: order not found" if failed and turn == 2 else '{"status": "pending"}'
        messages.append(
            _message(
                "tool", len(messages), id=f"c{turn}", requestor="assistant", error="Error" in result, content=result
            )
        )
        add(StepComplete((now - step_begun) * 1000, "agent", "env", step + 2))
        step_begun = now
        call("llm_call", "agent", step + 3, False, 400)
        messages.append(_message("assistant", len(messages), content=f"Order #W{number}{turn} is done."))
        add(StepComplete((now - step_begun) * 1000, "env", "agent", step + 3))
    messages.append(_message("user", len(messages), content="Thanks ###STOP###"))
    now += OWN_MS / 1000
    reward = 0.0 if failed else 1.0
    cost = sum(one["cost_usd"] for one in calls)
    add(SimulationDone("user_stop", reward, (now - begun) * 1000, cost))
    run.events.extend(events)
    run.records.append(_record(scope, number, begun, now, failed, messages, calls))
    return now


def _record(
    scope: Scope,
    number: int,
    begun: float,
    ended: float,
    failed: bool,
    messages: list[dict[str, Any]],
    calls: list[dict[str, Any]],
) -> dict[str, Any]:
    gold = [
        ("get_order_details", {"order_id": f"#W{number}0"}),
        ("modify_order", {"order_id": f"#W{number}2", "item": "7"}),
    ]
    roles = sorted({one["role"] for one in calls})
    return {
        "v": 1,
        "id": f"id-{number}",
        "domain": scope.domain,
        "task_id": scope.task_id,
        "trial": scope.trial,
        "seed": 626729,
        "attempt": 0,
        "started": "2025-12-23T10:15:00",
        "ended": "2025-12-23T10:16:00",
        "duration_s": ended - begun,
        "termination_reason": "user_stop",
        "reward": 0.0 if failed else 1.0,
        "sub_rewards": {"DB": 0.0 if failed else 1.0, "COMMUNICATE": 1.0, "ACTION": 0.0 if failed else 1.0},
        "db_diff": [{"side": "agent", "table": "orders", "key": f"#W{number}2", "field": "items[0].item_id",
                     "expected": '"7"', "actual": '"9"'}] if failed else [],
        "reward_info": {
            "reward": 0.0 if failed else 1.0,
            "db_check": {"db_match": not failed, "db_reward": 0.0 if failed else 1.0},
            "env_assertions": [],
            "action_checks": [
                {"action": {"action_id": f"{index}", "requestor": "assistant", "name": name, "arguments": arguments,
                            "info": None, "compare_args": None},
                 "action_match": not (failed and index == 1), "action_reward": 0.0 if failed and index == 1 else 1.0}
                for index, (name, arguments) in enumerate(gold)
            ],
            "communicate_checks": [{"info": "42.5", "met": True, "justification": "said"}],
            "nl_assertions": None,
            "reward_basis": ["DB", "COMMUNICATE"],
            "reward_breakdown": {"DB": 0.0 if failed else 1.0, "COMMUNICATE": 1.0},
            "info": {},
        },
        "messages": messages,
        "calls": calls,
        "usage_by_role": {
            role: {
                name: sum(one["usage"][name] for one in calls if one["role"] == role)
                for name in ("input_tokens", "output_tokens", "cached_tokens")
            }
            for role in roles
        },
        "cost_by_role": {role: sum(one["cost_usd"] for one in calls if one["role"] == role) for role in roles},
        "prompts": {"agent": "abc", "user": "def"},
        "notes": {},
        "error": None,
    }  # fmt: skip


def _servers(run: MadeRun, dice: random.Random, ended: float) -> None:
    for name in ("agent/0", "agent/1"):
        ready = ReplicaState(name, "ready", pid=10, port=1900)
        ready.time = STARTED
        run.events.append(ready)
        generated = 0.0
        now = STARTED
        while now < ended:
            now += 5
            generated += dice.randint(300, 900)
            sample = ReplicaSample(
                name, dice.randint(1, 5), dice.randint(0, 1), dice.random() * 0.6 + 0.1, 100, 60, 9000, generated
            )
            sample.time = now
            run.events.append(sample)
