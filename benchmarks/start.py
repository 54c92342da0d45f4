"""How long a user waits: `--help`, from start to the first request of a simulation, from a ready server to it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[1]


def rows(*, quick: bool) -> list[Row]:
    """The best CPU time of some starts, and the middle waiting time."""
    times = 3 if quick else 7
    _first_request("simulated")  # compiles and warms the caches of files
    helped = min(_cpu_s("--help") for _ in range(times))
    table = [Row("start/--help/cpu", helped, None, "s", limit=0.15)]
    for experiment in ("smoke", "simulated"):
        found = [_first_request(experiment) for _ in range(times)]
        place = f"start/{experiment}"
        detail = {"start to first request, s": [round(one, 3) for one, _, _ in found]}
        table += [
            Row(f"{place}/to the first request", median(one for one, _, _ in found), None, "s", limit=2.0,
                detail=detail),
            Row(f"{place}/from the first ready server to it", median(one for _, one, _ in found), None, "s", limit=0.2),
            Row(f"{place}/cpu of the whole", min(one for _, _, one in found), None, "s"),
        ]  # fmt: skip
    return table


def _cpu_s(*arguments: str) -> float:
    """CPU seconds of the program and of all that it started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "src.main", *arguments]
    # Python keeps what it has compiled, as it does unless it is told not to: every start but the first.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _first_request(experiment: str) -> tuple[float, float, float]:
    """Seconds from the program's start, and from its first ready server, to the first request; CPU of the whole."""
    with TemporaryDirectory() as directory:
        run_dir = Path(directory) / "run"
        begun = time.time()
        cpu_s = _cpu_s(f"experiment={experiment}", "num_tasks=3", f"hydra.run.dir={run_dir}")
        events = [json.loads(line) for line in (run_dir / "profile.jsonl").read_bytes().splitlines()]
    ready = min(event["time"] for event in events if event.get("state") == "ready")
    first = min(
        event["time"] - event["duration_ms"] / 1000 for event in events if "call_type" in event and "model" in event
    )
    return first - begun, first - ready, cpu_s
