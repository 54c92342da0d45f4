"""Whole runs as a user starts them: `python -m src.main …` in a process of its own.

`run` saves itself the imports (see `tests.warm`); `start` does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests import warm
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


def command(run_dir: Path | None, *overrides: str) -> list[str]:
    where = [] if run_dir is None else [f"hydra.run.dir={run_dir}"]
    flags = [override for override in overrides if override.startswith("--")]
    keys = [override for override in overrides if not override.startswith("--")]
    return [sys.executable, "-m", "src.main", *flags, *where, *keys]


def run(
    run_dir: Path | None, *overrides: str, timeout_s: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A run to its end."""
    words = command(run_dir, *overrides)[3:]
    return warm.run("src.main", words, cwd=ROOT, env=env(environment), timeout_s=timeout_s)


def start(run_dir: Path | None, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """A run that goes on beside the test, in a session of its own."""
    return subprocess.Popen(
        command(run_dir, *overrides),
        cwd=ROOT,
        env=env(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def env(extra: dict[str, str]) -> dict[str, str]:
    """The environment without keys of the machine's owner."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return {**kept, "COLUMNS": "120", **extra}


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "simulations.jsonl").read_bytes().splitlines()]


def records_so_far(run_dir: Path) -> list[dict[str, Any]]:
    """Of a run that goes on: a line that is just being written is left out."""
    whole = (run_dir / "simulations.jsonl").read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def servers_of(run_dir: Path, word: str = "") -> list[int]:
    """Processes that serve this run's tasks file; those with this word in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or ()
        if any(argument.startswith(str(run_dir)) for argument in words) and (not word or word in words):
            found.append(int(process.info["pid"]))
    return [pid for pid in found if pid != os.getpid()]


def processes_with(variable: str, value: object) -> list[psutil.Process]:
    """Living processes that have this in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == str(value) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_no_server_remains(run_dir: Path) -> None:
    """Servers may take a moment to end after the run that started them was killed."""
    wait_for(lambda: not servers_of(run_dir), left=lambda: f"still there: {servers_of(run_dir)}")


def rewards(run_dir: Path) -> dict[tuple[str, str, int], float]:
    return {(item["domain"], item["task_id"], item["trial"]): item["reward"] for item in records(run_dir)}


def keys(run_dir: Path) -> Counter[tuple[str, str, int]]:
    """How often each simulation is in the record."""
    return Counter((record["domain"], record["task_id"], record["trial"]) for record in records(run_dir))


def inventory(run_dir: Path) -> dict[str, int]:
    counts: dict[str, int] = summary(run_dir)["inventory"]["overall"]
    return counts


def stored(run_dir: Path) -> int:
    """How many whole lines the record has by now."""
    path = run_dir / "simulations.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
