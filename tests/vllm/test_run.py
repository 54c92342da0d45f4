"""Whole runs on real servers: mock and the first tasks of retail, on tiny checkpoints.

A sweep in which nothing happens, with a local user; and a single run that loses a server in the middle.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from tau2_fleet.config.quoting import quoted
from tests.run.runs import inventory, keys, kill, records, run, start, stored, summary
from tests.waiting import wait_for

SEEDS = (300, 301)


@pytest.fixture(scope="module")
def agents(vllm_executable: Path, tiny_agent: Path, serve_flags: tuple[str, ...]) -> list[str]:
    """The overrides that both runs share: two replicas for the agent, eight tasks."""
    return [
        f"agent.model={tiny_agent}",
        "agent.max_output_tokens=200",
        "agent.max_context_tokens=32768",
        f"server.executable={vllm_executable}",
        "server.device=cpu",
        "server.num=2",
        "server.start_port=0",
        f"server.extra_args={quoted(shlex.join(serve_flags))}",
        "judge=none",
        "experts=none",
        "domain=[mock,retail]",
        "num_tasks=4",
        "max_steps=20",
    ]


@pytest.fixture(scope="module")
def sweep(
    tmp_path_factory: pytest.TempPathFactory, agents: list[str], tiny_user: Path, serve_flags: tuple[str, ...]
) -> list[Path]:
    """The jobs' directories of a sweep over two seeds, with a server for the user beside the agent's."""
    directory = tmp_path_factory.mktemp("sweep") / "sweep"
    process = run(
        None,
        "--multirun",
        f"hydra.sweep.dir={directory}",
        f"seed={','.join(map(str, SEEDS))}",
        *agents,
        "server.preflight=false",
        "user_llm=vllm",
        f"user_llm.model={tiny_user}",
        "user_llm.max_output_tokens=200",
        f"user_llm.pool.extra_args={quoted(shlex.join(serve_flags))}",
        "wandb=disabled",
        "max_concurrency=8",
        timeout_s=900,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return sorted(directory.glob("[0-9]*"))


def events(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    by_type = defaultdict(list)
    for line in (run_dir / "profile.jsonl").read_bytes().splitlines():
        event = json.loads(line)
        by_type[event["type"]].append(event)
    return by_type


def test_every_simulation_of_both_jobs_is_stored_and_ends_regularly(sweep: list[Path]):
    assert len(sweep) == len(SEEDS)
    for run_dir in sweep:
        assert len(records(run_dir)) == 8
        assert summary(run_dir)["inventory"]["overall"]["finished"] == 8
        assert not [record["error"] for record in records(run_dir) if record["error"]]


def test_every_file_of_a_run_is_there(sweep: list[Path]):
    for run_dir in sweep:
        for name in ("mock.json", "retail.json", "summary.json", "profile.jsonl", "run.log", "trace.json"):
            assert (run_dir / name).stat().st_size > 0, name
    logs = {path.name for path in (sweep[0].parent / "servers").glob("*.log")}
    assert len([name for name in logs if name.startswith("agent-")]) == 2


def test_both_jobs_used_the_same_servers(sweep: list[Path]):
    pids = [[replica["pid"] for replica in summary(run_dir)["fleet"]["replicas"]] for run_dir in sweep]
    assert pids[0] == pids[1]
    assert len(set(pids[0])) == 3


def test_real_tool_calls_were_made_and_answered(sweep: list[Path]):
    tools = [message for run_dir in sweep for record in records(run_dir) for message in record["messages"]]
    assert sum(message["role"] == "tool" for message in tools) > 5


def test_token_counts_equal_the_servers_own_metrics(sweep: list[Path]):
    before: dict[str, dict[str, float]] = {}
    for run_dir in sweep:
        told = events(run_dir)
        calls = told["llm_call"] + told["user_sim"]
        last = {sample["replica"]: sample for sample in told["replica_sample"]}
        for name in ("prompt_tokens", "generation_tokens"):
            counted = sum(sample[name] for sample in last.values())
            counted -= sum(sample[name] for sample in before.values())
            own = "input_tokens" if name == "prompt_tokens" else "output_tokens"
            assert counted == sum(call[own] for call in calls) > 0, (run_dir.name, name)
        before = last


def test_the_prefix_cache_was_of_use_and_is_reported(sweep: list[Path]):
    for run_dir in sweep:
        calls = events(run_dir)["llm_call"]
        assert sum(call["cached_tokens"] for call in calls) > 0.3 * sum(call["input_tokens"] for call in calls)


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory, agents: list[str]) -> tuple[Path, subprocess.Popen[str], int]:
    """A run that is over: its directory, its process, and the pid of the server that was killed in the middle."""
    run_dir = tmp_path_factory.mktemp("bereft") / "run"
    more = ("user_llm=simulated", "server.min_ready=2", "wandb=offline", "num_trials=2", "max_concurrency=4")
    process = start(run_dir, *agents, *more)
    try:
        wait_for(lambda: process.poll() is not None or stored(run_dir), 600)
        said = re.search(r"server agent/0 is ready on \S+ \(pid (\d+)\)", (run_dir / "run.log").read_text())
        assert said, process.stdout.read() if process.stdout else ""
        victim = int(said[1])
        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=600)
    finally:
        kill(process)
    return run_dir, process, victim


def test_a_run_that_loses_a_server_finishes_every_simulation_once_and_counts_the_restart(
    bereft: tuple[Path, subprocess.Popen[str], int],
):
    run_dir, process, victim = bereft
    assert process.returncode == 0
    assert inventory(run_dir) == {"scheduled": 16, "finished": 16, "infrastructure_errors": 0, "not_run": 0}
    assert len(keys(run_dir)) == 16
    assert set(keys(run_dir).values()) == {1}
    fleet = summary(run_dir)["fleet"]
    assert fleet["restarts"] == 1
    restarted = {replica["name"]: replica["restarts"] for replica in fleet["replicas"] if replica["pool"] == "agent"}
    assert restarted == {"agent/0": 1, "agent/1": 0}
    assert not psutil.pid_exists(victim)


def test_a_single_run_leaves_every_file_that_it_promises(bereft: tuple[Path, subprocess.Popen[str], int]):
    run_dir, _, _ = bereft
    for name in (
        *(".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml"),
        *("simulations.jsonl", "mock.json", "retail.json", "summary.json"),
        *("profile.jsonl", "run.log", "trace.json"),
        *("servers/agent-0.log", "servers/agent-1.log", "servers/model_config_local.json"),
    ):
        assert (run_dir / name).stat().st_size > 0, name
    assert list((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    for name in ("mock", "retail"):
        assert len(json.loads((run_dir / f"{name}.json").read_text())["simulations"]) == 8
    served = json.loads((run_dir / "servers" / "model_config_local.json").read_text())
    agents = [replica for replica in summary(run_dir)["fleet"]["replicas"] if replica["pool"] == "agent"]
    assert [entry["port"] for entry in served[agents[0]["model"]]] == [str(replica["port"]) for replica in agents]
