"""`shards=N`: a run that several processes play is the run that one plays, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from tests.run.runs import assert_no_server_remains, inventory, keys, kill, run, servers_of, start, stored, summary
from tests.run.test_merge import told
from tests.waiting import all_gone, wait_for

SMOKE = ("experiment=smoke", "num_trials=2", "wandb=disabled", "report=false")
SLOW = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.1", "max_concurrency=6")


def players(process: Popen[str]) -> list[psutil.Process]:
    """The processes that play for a run."""
    children = (child.as_dict(["pid", "cmdline"]) for child in psutil.Process(process.pid).children())
    pids = [child["pid"] for child in children if "tau2_fleet.run.shard_process" in (child["cmdline"] or ())]
    return [psutil.Process(pid) for pid in pids]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def live(run_dir: Path) -> Iterator[tuple[Popen[str], list[psutil.Process]]]:
    """A run of two shards in the midst of its simulations."""
    process = start(run_dir, *SMOKE, *SLOW, "shards=2")
    try:
        wait_for(lambda: stored(run_dir) >= 2 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        found = players(process)
        assert len(found) == 2
        yield process, found
    finally:
        kill(process)
        assert_no_server_remains(run_dir)


def assert_gone(processes: list[psutil.Process]) -> None:
    all_gone(process.pid for process in processes)


def test_a_run_of_three_shards_is_the_run_of_one_process(tmp_path: Path) -> None:
    for name, shards in (("one", 1), ("three", 3)):
        done = run(tmp_path / name, *SMOKE, f"shards={shards}")
        assert done.returncode == 0, done.stderr
    assert told(tmp_path / "three") == told(tmp_path / "one")
    events = {name: (tmp_path / name / "profile.jsonl").read_text() for name in ("one", "three")}
    for kind in ("llm_call", "user_sim", "tool_call", "step_complete", "simulation", "run"):
        mark = f'"type":"{kind}"'
        assert events["three"].count(mark) == events["one"].count(mark) > 0, kind
    lines = {name: (tmp_path / name / "run.log").read_text().count("type=simulation") for name in ("one", "three")}
    assert lines == {"one": 18, "three": 18}


def test_a_shard_that_is_killed_is_replaced_and_nothing_is_lost_or_twice(
    live: tuple[Popen[str], list[psutil.Process]], run_dir: Path
) -> None:
    process, found = live
    found[0].kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "ended with signal 9; a new one plays its" in output
    assert inventory(run_dir)["finished"] == 18
    assert set(keys(run_dir).values()) == {1}
    assert_gone(found)


def test_a_run_that_is_killed_takes_its_shards_along_and_goes_on(
    live: tuple[Popen[str], list[psutil.Process]], run_dir: Path
) -> None:
    process, found = live
    before = stored(run_dir)
    kill(process)
    assert_gone(found)
    assert_no_server_remains(run_dir)
    done = run(None, f"resume={run_dir}", "server.simulated.latency=null")
    assert done.returncode == 0, done.stderr
    assert before <= 18 == len(keys(run_dir))
    assert set(keys(run_dir).values()) == {1}


def test_signals_reach_the_run_alone_and_end_it_in_good_order(
    live: tuple[Popen[str], list[psutil.Process]], run_dir: Path
) -> None:
    process, found = live
    for child in found:
        child.send_signal(signal.SIGTERM)  # as a whole job gets it
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert "stopping: simulations in flight have" in output
    told_of = summary(run_dir)
    assert process.returncode == (130 if inventory(run_dir)["not_run"] else 0), output
    assert told_of["inventory"]["overall"]["finished"] == stored(run_dir) < 18
    assert_gone(found)


def test_a_server_that_dies_is_left_by_all_shards_and_found_again(
    live: tuple[Popen[str], list[psutil.Process]], run_dir: Path
) -> None:
    process, _ = live
    os.kill(servers_of(run_dir, "tau2_fleet.simserver")[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert inventory(run_dir)["finished"] == 18
    assert summary(run_dir)["fleet"]["restarts"] >= 1


def test_code_of_ones_own_that_ends_every_process_ends_the_run_in_a_line(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "fatal.py").write_text(
        "import os\nfrom tau2_fleet.agents.tool_calling import ToolCallingAgent\n\n\n"
        "class Agent(ToolCallingAgent):\n    async def next_message(self, incoming):\n        os._exit(7)\n"
    )
    done = run(
        run_dir, *SMOKE, "shards=2", "++agent.scaffold={_target_: fatal.Agent}", PYTHONPATH=f"{tmp_path}:src"
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "processes died (status 7) while they played it" in done.stderr
    assert "Traceback" not in done.stderr
