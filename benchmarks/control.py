"""`tau2-fleet ctl status`: what being asked costs the run, in CPU of the run's own process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.rows import Row
from tau2_fleet.control import client
from tau2_fleet.control.messages import ControlRequest, Verb

ROOT = Path(__file__).resolve().parents[1]

_LIMIT_MS = 0.2
_RUN = (
    "experiment=smoke", "num_trials=99", "max_concurrency=6", "wandb=disabled", "report=false",
    "server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.03",
)  # fmt: skip


def rows(*, quick: bool) -> list[Row]:
    """Milliseconds of CPU of one answer, in a run that is paused: the least of some stretches."""
    asked = 200 if quick else 1000
    with TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "src.main", *_RUN, f"hydra.run.dir={run_dir}"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            while not (run_dir / "simulations.jsonl").exists():
                if process.poll() is not None:
                    raise RuntimeError(f"the run ended with {process.returncode}")
                time.sleep(0.1)
            client.ask(run_dir, ControlRequest(Verb.pause))
            while client.status(run_dir).requests:
                time.sleep(0.1)
            costs = [_cost_ms(psutil.Process(process.pid), run_dir, asked) for _ in range(5)]
        finally:
            process.terminate()
            process.wait()
    return [Row("ctl/status", min(costs), None, "ms", limit=_LIMIT_MS, detail={"asked": asked})]


def _cost_ms(run: psutil.Process, run_dir: Path, asked: int) -> float:
    """Of one status, less what the run takes in as long a time without being asked."""
    before, begun = _cpu_s(run), time.monotonic()
    for _ in range(asked):
        client.status(run_dir)
    took_s = time.monotonic() - begun
    after = _cpu_s(run)
    time.sleep(took_s)
    return 1000 * ((after - before) - (_cpu_s(run) - after)) / asked


def _cpu_s(run: psutil.Process) -> float:
    times = run.cpu_times()
    return float(times.user + times.system)
