"""Real vLLM servers as steps of a real SLURM: two replicas on two nodes, a whole run of mock, and nothing left.

Needs root and Debian's SLURM, as `make test-cluster` installs it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tau2_fleet.config.quoting import quoted
from tests.cluster.slurm import Cluster, missing
from tests.run.runs import assert_no_server_remains, command, env, inventory, keys, records, summary


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Cluster]:
    if why := missing():
        pytest.skip(why)
    cluster = Cluster(tmp_path / "slurm", nodes=2)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_two_replicas_on_two_nodes_play_mock(
    slurm: Cluster, vllm_executable: Path, tiny_agent: Path, serve_flags: tuple[str, ...], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    overrides = [
        f"agent.model={tiny_agent}",
        "agent.max_output_tokens=200",
        "agent.max_context_tokens=32768",
        f"server.executable={vllm_executable}",
        f"server.extra_args={quoted(shlex.join(serve_flags))}",
        *("server.device=cpu", "server.num=2", "server.min_ready=2", "server.preflight=false", "hosts=slurm"),
        *("domain=mock", "user_llm=simulated", "judge=simulated", "experts=none", "max_steps=20", "wandb=disabled"),
    ]
    done = subprocess.run(
        ["salloc", "--no-kill", "-N2", "--exclusive", *command(run_dir, *overrides)],
        env=env(slurm.environment),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert inventory(run_dir)["finished"] == 9
    assert set(keys(run_dir).values()) == {1}
    replicas = [one for one in summary(run_dir)["fleet"]["replicas"] if one["pool"] == "agent"]
    assert sorted(one["host"] for one in replicas) == ["n0", "n1"]
    answered = {call["replica"] for record in records(run_dir) for call in record["calls"] if call.get("replica")}
    assert {"agent/0", "agent/1"} <= answered
    assert "Application startup complete" in (run_dir / "servers" / "agent-1.log").read_text()
    assert_no_server_remains(run_dir)
