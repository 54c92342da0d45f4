"""Whole runs whose agent is somebody else's program, by MCP.

DIFFERENTIAL=full plays the 278 base tasks, else a share of them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tau2_fleet.analysis import show
from tests.examples import write_examples
from tests.run.runs import ROOT, kill, processes_with, records, run, start, stored, summary
from tests.waiting import CEILING_S, wait_for

WHOLE = os.environ.get("DIFFERENTIAL") == "full"
SHARE = ("shards=2",) if WHOLE else ("domain=[mock,telecom]", "num_tasks=6")
HANGS = "update_task_1"
CLIENT = ROOT / "benchmarks" / "seat_client.py"
MCP = ("agent/scaffold=mcp", f"agent.scaffold.command='{sys.executable} -S {CLIENT}'", "report=false")


def essence(run_dir: Path) -> dict[Any, Any]:
    """Every conversation without what differs from one run to the next."""
    return {
        (record["domain"], record["task_id"], record["trial"]): [
            (
                message["role"],
                message["content"],
                message.get("error"),
                [(call["name"], call["arguments"], call["requestor"]) for call in message.get("tool_calls") or ()],
            )
            for message in record["messages"]
        ]
        for record in records(run_dir)
    }


def marked(run_dir: Path) -> list[str]:
    """What makes the client of one task hang, and those of this run known."""
    return [f"+agent.scaffold.environment.{name}={value}" for name, value in (("OF_RUN", run_dir), ("HANG_AT", HANGS))]


def test_client_processes_have_the_conversations_of_the_built_in_agent(tmp_path: Path) -> None:
    built_in, through = tmp_path / "built-in", tmp_path / "mcp"
    beside = start(built_in, "experiment=simulated", "report=false", *SHARE)
    done = run(through, "experiment=simulated", *MCP, *SHARE, timeout_s=600)
    assert done.returncode == 0, done.stderr
    assert beside.wait(300) == 0
    assert all(record["reward"] == 1.0 for record in records(through) if record["domain"] != "mock")
    assert essence(through) == essence(built_in)
    told = summary(through)
    assert told["inventory"]["overall"]["finished"] == len(records(built_in))
    assert told["scaffolds"]["agent"]["name"] == "mcp"
    assert told["metrics"]["overall"]["cost_unknown"] == 0
    usage = [[record["usage_by_role"]["agent"]["output_tokens"] for record in sorted(
        records(folder), key=lambda record: (record["domain"], record["task_id"])
    )] for folder in (through, built_in)]  # fmt: skip
    assert usage[0] == usage[1]


def test_a_killed_run_leaves_no_client_and_a_resumed_one_plays_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    first = start(run_dir, "experiment=smoke", *MCP, *marked(run_dir), "agent.scaffold.turn_limit_s=100")
    try:
        wait_for(lambda: stored(run_dir) == 8 or first.poll() is not None)
        assert first.poll() is None, first.stdout and first.stdout.read()
        # the one that hangs, and what it started
        wait_for(lambda: len(processes_with("OF_RUN", run_dir)) == 2)
        assert psutil.pid_exists(first.pid)
    finally:
        kill(first)
    wait_for(lambda: not processes_with("OF_RUN", run_dir))
    before = {record["id"] for record in records(run_dir)}
    done = run(None, f"resume={run_dir}", "agent.scaffold.turn_limit_s=1", "resume_force=true")
    assert done.returncode == 0, done.stderr
    added = [record for record in records(run_dir) if record["id"] not in before]
    assert [(record["task_id"], record["termination_reason"]) for record in added] == [(HANGS, "agent_error")]
    assert show.main([str(run_dir), "--task", HANGS]) == 0
    shown = capsys.readouterr().out
    assert "the client did nothing for 1 s" in shown
    assert "I had rather not" in shown


def test_an_interrupted_run_takes_its_clients_along(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, "experiment=smoke", *MCP, *marked(run_dir), f"task_ids=[{HANGS}]", "limits.grace_s=0.2")
    wait_for(lambda: len(processes_with("OF_RUN", run_dir)) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.stdout and process.stdout.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(CEILING_S) == 130
    wait_for(lambda: not processes_with("OF_RUN", run_dir))


def test_the_client_of_the_docs_plays_without_a_line_changed(tmp_path: Path) -> None:
    write_examples(tmp_path / "mine")
    client = f"agent.scaffold.command='{sys.executable} {tmp_path}/mine/mcp_agent.py'"
    done = run(tmp_path / "run", "experiment=smoke", *MCP, client, "task_ids=[create_task_1]")
    assert done.returncode == 0, done.stderr
    assert [(record["reward"], record["error"]) for record in records(tmp_path / "run")] == [(1.0, None)]


def test_an_agent_that_brings_its_own_model_needs_no_server(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    own = ("server=absent", "server.start_port=0", "agent.model=mine", "task_ids=[create_task_1]")
    done = run(run_dir, "experiment=smoke", *MCP, *own)
    assert done.returncode == 0, done.stderr
    [record] = records(run_dir)
    assert record["termination_reason"] == "agent_error"
    assert "KeyError: 'TAU2_MODEL_URL'" in record["error"]  # there is none
    assert [path.name for path in (run_dir / "servers").glob("agent*.log")] == []
    assert summary(run_dir)["models"]["agent"]["model"] == "mine"
