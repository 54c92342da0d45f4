"""Any number of kills at any moment: no finished simulation is lost, none is run twice, no server stays behind."""

from __future__ import annotations

import os
import random
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.run.runs import assert_no_server_remains, keys, kill, rewards, run, start, stored, summary
from tests.waiting import wait_for

KILLS = 16
OVERRIDES = (
    "experiment=smoke",
    "num_trials=20",
    "max_concurrency=12",
    "server.simulated.latency=fleet-h100",
    "server.simulated.latency_scale=0.016",
)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("calm") / "run"
    process = run(run_dir, "experiment=smoke", "num_trials=20", "max_concurrency=64")
    assert process.returncode == 0, process.stderr
    return run_dir


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path, calm: Path):
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 1_000_000))
    generator = random.Random(seed)
    run_dir = tmp_path / "run"
    kills: list[str] = []
    stored_before = 0
    for _ in range(KILLS):
        begun = (run_dir / ".hydra" / "overrides.yaml").exists()
        process = start(None, f"resume={run_dir}") if begun else start(run_dir, *OVERRIDES)
        in_the_middle = generator.random() < 0.6
        pause_s = generator.uniform(0.0, 1.0) if in_the_middle else generator.uniform(0.3, 3.0)
        if in_the_middle:
            wait_for(partial(_has_stored_more, process, run_dir, stored_before))
        try:
            process.wait(pause_s)
        except subprocess.TimeoutExpired:
            kill(process)
        output = process.stdout.read() if process.stdout else ""
        assert "Traceback" not in output, f"seed {seed}: {output}"
        assert_no_server_remains(run_dir)
        stored_now = stored(run_dir)
        assert stored_now >= stored_before, f"seed {seed}: records were lost"
        kills.append(f"{pause_s:.2f} s after {'a record' if in_the_middle else 'the start'}: {stored_now}")
        stored_before = stored_now
        if process.returncode == 0:
            break
    print(f"\ntorture seed {seed}: killed after (stored then) {'; '.join(kills)}")
    last = run(None, f"resume={run_dir}", "server.simulated.latency=null")
    assert last.returncode == 0, f"seed {seed}: {last.stderr}"
    assert_no_server_remains(run_dir)

    counts = keys(run_dir)
    assert len(counts) == 180, f"seed {seed}"
    assert set(counts.values()) == {1}, f"seed {seed}: run twice: {[key for key, count in counts.items() if count > 1]}"
    assert rewards(run_dir) == rewards(calm), f"seed {seed}"
    assert summary(run_dir)["inventory"] == summary(calm)["inventory"]
    killed = [entry for entry in kills if not entry.endswith(": 0")]
    assert len(killed) > KILLS / 3, f"seed {seed}: too few kills while simulations were running: {kills}"


def _has_stored_more(process: subprocess.Popen[str], run_dir: Path, before: int) -> bool:
    return process.poll() is not None or stored(run_dir) > before
