"""A whole sweep on real servers: agent and local user on tiny checkpoints, mock and the first tasks of retail."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.runs import records, run, summary

SEEDS = (300, 301)


@pytest.fixture(scope="module")
def sweep(
    tmp_path_factory: pytest.TempPathFactory,
    vllm_executable: Path,
    tiny_agent: Path,
    tiny_user: Path,
    serve_flags: tuple[str, ...],
) -> list[Path]:
    """The jobs' directories of a sweep over two seeds: two replicas for the agent, one server for the user."""
    directory = tmp_path_factory.mktemp("sweep") / "sweep"
    flags = shlex.join(serve_flags).replace("\\", "\\\\").replace("'", "\\'")
    process = run(
        None,
        "--multirun",
        f"hydra.sweep.dir={directory}",
        f"seed={','.join(map(str, SEEDS))}",
        f"agent.model={tiny_agent}",
        "agent.max_output_tokens=200",
        "agent.max_context_tokens=32768",
        f"server.executable={vllm_executable}",
        "server.device=cpu",
        "server.num=2",
        "server.start_port=0",
        "server.preflight=false",
        f"server.extra_args='{flags}'",
        "user_llm=vllm",
        f"user_llm.model={tiny_user}",
        "user_llm.max_output_tokens=200",
        f"user_llm.pool.extra_args='{flags}'",
        "judge=none",
        "experts=none",
        "wandb=disabled",
        "domain=[mock,retail]",
        "num_tasks=4",
        "max_steps=20",
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
