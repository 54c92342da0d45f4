"""How a run ends before its end: signals, limits, disks; each time the truth is written and no server stays behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tau2_fleet.config.quoting import quoted
from tests.fleet.support import children_of, fake_executable, fake_model
from tests.run.runs import (
    ROOT,
    assert_no_server_remains,
    command,
    env,
    inventory,
    keys,
    kill,
    records,
    run,
    start,
    stored,
    summary,
)
from tests.waiting import CEILING_S, all_gone, wait_for

SLOW = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.02")
"""A simulation takes about a second."""
HANGING = ("server.simulated.faults.rate=1", "server.simulated.faults.kinds=[hang]")


def output_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


def signal_twice(process: subprocess.Popen[str]) -> Iterator[str]:
    """Ctrl-C, and again once it has been heard; the rest of the output."""
    process.send_signal(signal.SIGINT)
    lines = iter(process.stdout or ())
    while "stopping" not in next(lines):
        pass
    process.send_signal(signal.SIGINT)
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_what_is_in_flight_end_and_writes_everything(tmp_path: Path, number: int) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, "experiment=smoke", "num_trials=10", "max_concurrency=6", *SLOW)
    try:
        before = wait_for(lambda: stored(run_dir))
        process.send_signal(number)
        assert process.wait(CEILING_S) == 130
    finally:
        kill(process)
    output = output_of(process)
    assert "stopping" in output
    assert "Traceback" not in output
    assert_no_server_remains(run_dir)
    finished = len(records(run_dir))
    assert before < finished <= before + 40
    told = summary(run_dir)
    assert (told["exit_status"], told["stopped"]) == (130, "interrupted")
    assert told["inventory"]["overall"] == {
        "scheduled": 90,
        "finished": finished,
        "infrastructure_errors": 0,
        "not_run": 90 - finished,
    }
    assert len(json.loads((run_dir / "mock.json").read_text())["simulations"]) == finished
    json.loads((run_dir / "trace.json").read_text())

    again = run(None, f"resume={run_dir}", "server.simulated.latency=null")
    assert again.returncode == 0, again.stderr
    assert set(keys(run_dir).values()) == {1}
    assert inventory(run_dir)["finished"] == len(keys(run_dir)) == 90


def test_a_terminal_that_goes_away_ends_the_run_in_good_order_with_all_files(tmp_path: Path) -> None:
    """A hang-up: the signal, and an output that takes nothing any more."""
    run_dir = tmp_path / "run"
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    arguments = command(run_dir, "experiment=smoke", "num_trials=10", "max_concurrency=6", *SLOW)
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=env({}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    try:
        wait_for(lambda: stored(run_dir))
        os.close(ours)
        assert process.wait(CEILING_S) == 130
    finally:
        process.kill()
        process.wait()
    assert_no_server_remains(run_dir)
    assert (summary(run_dir)["exit_status"], summary(run_dir)["stopped"]) == (130, "interrupted")
    assert inventory(run_dir)["finished"] == len(records(run_dir))
    assert (run_dir / "mock.json").exists()


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, "experiment=smoke", "limits.grace_s=3600", *HANGING)
    try:
        wait_for(lambda: log_of(run_dir).count("is ready on") >= 2)
        lines = signal_twice(process)
        begun = time.monotonic()
        assert process.wait(CEILING_S) == 130
        assert time.monotonic() - begun < 30
    finally:
        kill(process)
    assert "Traceback" not in "".join(lines)
    assert_no_server_remains(run_dir)
    assert inventory(run_dir) == {"scheduled": 9, "finished": 0, "infrastructure_errors": 0, "not_run": 9}


def test_the_second_signal_does_not_wait_for_a_tracker_that_never_answers(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        online = {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": address}
        process = start(run_dir, "experiment=smoke", "limits.grace_s=3600", "wandb=online", *HANGING, **online)
        try:
            wait_for(lambda: log_of(run_dir).count("is ready on") >= 2)
            signal_twice(process)
            begun = time.monotonic()
            assert process.wait(CEILING_S) == 130
            assert time.monotonic() - begun < 30
        finally:
            kill(process)
    assert_no_server_remains(run_dir)
    assert inventory(run_dir)["finished"] == 0


def log_of(run_dir: Path) -> str:
    path = run_dir / "run.log"
    return path.read_text() if path.exists() else ""


def test_an_interrupt_while_the_fleet_starts_ends_the_servers_and_their_children(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fake = """--fake '{"never_ready": true, "children": true, "deaf": true}'"""
    process = start(
        run_dir,
        *("experiment=smoke", "server=vllm", "server.start_port=0", "server.num=2", "server.device=cpu"),
        f"server.executable={fake_executable(tmp_path)}",
        f"agent.model={fake_model(tmp_path)}",
        f"server.extra_args={quoted(fake)}",
    )
    logs = [run_dir / "servers" / f"agent-{number}.log" for number in (0, 1)]
    try:
        wait_for(lambda: all(log.exists() and children_of(log) for log in logs))
        process.send_signal(signal.SIGINT)
        assert process.wait(CEILING_S) == 130
    finally:
        kill(process)
    assert "Traceback" not in output_of(process)
    assert_no_server_remains(tmp_path)
    all_gone(pid for log in logs for pid in children_of(log))
    assert summary(run_dir)["exit_status"] == 130
    assert inventory(run_dir)["not_run"] == 9


def test_the_run_timeout_ends_a_fleet_that_is_never_ready(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fake = """--fake '{"never_ready": true}'"""
    process = run(
        run_dir,
        *("experiment=smoke", "server=vllm", "server.start_port=0", "server.device=cpu", "limits.run_timeout_s=4"),
        f"server.executable={fake_executable(tmp_path)}",
        f"agent.model={fake_model(tmp_path)}",
        f"server.extra_args={quoted(fake)}",
    )
    assert process.returncode == 3, process.stdout + process.stderr
    told = "longer than limits.run_timeout_s=4, before the first simulation"
    assert process.stdout.count(told) == 1
    assert "Traceback" not in process.stdout + process.stderr
    assert (run_dir / "servers" / "agent-0.log").exists()
    assert (summary(run_dir)["stopped"], inventory(run_dir)["not_run"]) == (told, 9)
    assert_no_server_remains(tmp_path)


PRICED = ("user_llm.price.input=20000", "user_llm.price.output=20000", "max_concurrency=1")
LIMITS = {
    "run": (("limits.run_timeout_s=1", "limits.grace_s=0.5", *HANGING), "longer than limits.run_timeout_s=1", set()),
    "simulation": (("limits.simulation_timeout_s=1", *HANGING), None, {"deadline"}),
    "call": (("limits.call_timeout_s=1", *HANGING), None, {"deadline"}),
    "money": (("limits.max_cost_usd=80", *PRICED), "of limits.max_cost_usd=80", {"user_stop", "infrastructure_error"}),
}
"""What is limited: overrides, why the run says it stopped, how its simulations ended."""


def test_limits_of_time_and_money_end_a_run_as_incomplete(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda name: run(tmp_path / name, "experiment=smoke", *LIMITS[name][0]), LIMITS)
    for (name, (_, stopped, endings)), process in zip(LIMITS.items(), runs, strict=True):
        run_dir = tmp_path / name
        assert process.returncode == 3, f"{name}: {process.stdout}{process.stderr}"
        told = summary(run_dir)
        assert told["exit_status"] == 3
        assert stopped is told["stopped"] or stopped in told["stopped"], name
        assert {record["termination_reason"] for record in records(run_dir)} == endings, name
        counts = told["inventory"]["overall"]
        assert sum(counts.values()) - counts["scheduled"] == counts["scheduled"] == 9
        if name == "money":
            assert 0 < counts["finished"] < 9
            assert "is spent: a request that may cost $" in process.stdout
        assert "resume=" in process.stdout
        assert_no_server_remains(run_dir)


def test_the_last_interrupted_job_ends_its_sweep(tmp_path: Path) -> None:
    """Also when what was in flight came to its end in the time of grace, so that the job itself is complete."""
    sweep = tmp_path / "sweep"
    process = start(
        None,
        *("--multirun", "experiment=smoke", "seed=1,2", f"hydra.sweep.dir={sweep}", "max_concurrency=64"),
        *("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.1"),
    )
    try:
        wait_for(lambda: list(sweep.glob("0_*/simulations.jsonl")) and stored(next(sweep.glob("0_*"))))
        process.send_signal(signal.SIGINT)
        assert process.wait(CEILING_S) == 130
    finally:
        kill(process)
    assert "Traceback" not in output_of(process)
    assert inventory(next(sweep.glob("0_*")))["finished"] == 9
    assert not list(sweep.glob("1_*"))
    assert_no_server_remains(sweep)

    again = run(None, f"resume={sweep}", "server.simulated.latency=null")
    assert again.returncode == 0, again.stderr
    assert [inventory(job)["finished"] for job in sorted(sweep.glob("[01]_*"))] == [9, 9]
    assert all(set(keys(job).values()) == {1} for job in sweep.glob("[01]_*"))


@pytest.mark.parametrize("where", ["/proc/nowhere/run", "{file}/run"])
def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path, where: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    process = run(Path(where.format(file=file)), "experiment=smoke")
    assert process.returncode == 1
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert where.format(file=file).removesuffix("/run") in process.stderr


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    process = run(tmp_path / "run", "experiment=smoke", "wandb=offline", HOME="/proc/nowhere", XDG_CACHE_HOME="")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    assert list((tmp_path / "run" / "wandb").rglob("*.wandb"))


def run_with_files_of_at_most(size: int, run_dir: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run on a disk that is as good as full."""

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return subprocess.run(
        command(run_dir, *overrides), cwd=ROOT, env=env({}), capture_output=True, text=True, preexec_fn=full_disk
    )


@pytest.mark.parametrize(
    ("size", "told"), [(2_000, "cannot write {}/.hydra/config.yaml: "), (8_000, "cannot store .* in {}/")]
)
def test_a_disk_that_is_full_from_the_start_is_one_clear_error(tmp_path: Path, size: int, told: str) -> None:
    process = run_with_files_of_at_most(size, tmp_path / "run", "experiment=smoke", "log_level=ERROR")
    assert process.returncode == 1, process.stderr
    assert re.match(f"error: {told.format(tmp_path / 'run')}", process.stderr)
    assert process.stderr.count("\n") == 1
    assert_no_server_remains(tmp_path / "run")


def test_a_disk_that_fills_up_is_one_clear_error_and_the_run_goes_on_from_there(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overrides = ("experiment=smoke", "num_trials=5", "max_concurrency=4", "log_level=WARNING")
    process = run_with_files_of_at_most(150_000, run_dir, *overrides)
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    assert "cannot store mock/" in process.stderr
    assert f"resume={run_dir}" in process.stderr
    assert_no_server_remains(run_dir)
    before = len(records(run_dir))
    assert 0 < before < 45

    again = run(None, f"resume={run_dir}")
    assert again.returncode == 0, again.stderr
    assert len(records(run_dir)) == len(keys(run_dir)) == 45
