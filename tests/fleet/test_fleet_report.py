"""What the summary says of servers that had to be started again, in one attempt of a run and over several."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.fleet.fleet_report import FleetReport
from tests.run.runs import kill, run, servers_of, start, stored, summary
from tests.waiting import CEILING_S, wait_for

SLOW = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.02")
"""A simulation takes about a second."""


def agents_of(run_dir: Path) -> set[int]:
    """The pids of the simulated servers of the agent's pool."""
    return set(servers_of(run_dir, "agent"))


def lose_a_server(run_dir: Path) -> None:
    """Start the run or go on with it, kill a server in the middle, and interrupt the run once there is a new one."""
    before = stored(run_dir)
    overrides = (None, f"resume={run_dir}") if before else (run_dir, "experiment=smoke", "num_trials=10", *SLOW)
    process = start(*overrides, "max_concurrency=6")
    try:
        wait_for(lambda: stored(run_dir) > before)
        agents = agents_of(run_dir)
        os.kill(min(agents), signal.SIGKILL)
        wait_for(lambda: agents_of(run_dir) - agents)
        process.send_signal(signal.SIGINT)
        assert process.wait(CEILING_S) == 130
    finally:
        kill(process)


def test_servers_lost_in_two_attempts_of_a_run_are_counted_and_a_resume_without_servers_keeps_the_figures(
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    for attempt in (1, 2):
        lose_a_server(run_dir)
        told = summary(run_dir)["fleet"]
        assert told["restarts"] == attempt
        assert sum(replica["restarts"] for replica in told["replicas"]) == 1, "in this attempt"
        assert told["sessions_moved"] > 0
    finished = run(None, f"resume={run_dir}", "server.simulated.latency=null")
    assert finished.returncode == 0, finished.stderr
    told = summary(run_dir)["fleet"]
    assert told["restarts"] == 2
    nothing_left = run(None, f"resume={run_dir}")
    assert nothing_left.returncode == 0, nothing_left.stderr
    assert summary(run_dir)["fleet"] == told
    assert told["replicas"]


@pytest.mark.parametrize("saved", [None, [], {}, {"replicas": {}, "restarts": "3"}, {"replicas": [[], {"a": [1]}]}])
def test_what_cannot_be_used_of_an_earlier_summary_counts_as_nothing(saved: Any) -> None:
    assert FleetReport(restarts=1).added_to(saved) == {"replicas": [], "restarts": 1, "sessions_moved": 0}
