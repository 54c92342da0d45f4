"""`tau2-fleet export` of 20,000 conversations of 30 to 60 messages: simulations per second of CPU, and memory.

Each export is a process of its own, its start included.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pages import write_long_run
from benchmarks.rows import Row

SIMULATIONS = 20_000
_QUICK = 2_000
_FORMATS = {"csv": ["csv"], "messages": ["parquet", "--table", "messages"], "sft": ["sft", "--all"]}
"""Name of the row to the format with its options."""
_PER_SECOND = 1000
_MIB = 400


def rows(*, quick: bool) -> list[Row]:
    """Simulations per second of CPU, and the most memory of any export."""
    count = _QUICK if quick else SIMULATIONS
    table: list[Row] = []
    most = 0.0
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        write_long_run(directory, count)
        size = (directory / "simulations.jsonl").stat().st_size
        detail = {"simulations": count, "kB each": round(size / count / 1000, 1)}
        for name, options in _FORMATS.items():
            cpu_s, mib = measured(["export", str(directory), "--format", *options])
            most = max(most, mib)
            limit = _PER_SECOND if name in ("csv", "sft") else None
            table.append(Row(f"exports/{name}", count / cpu_s, None, "/s", more=True, limit=limit, detail=detail))
    return [*table, Row("exports/memory", most, None, "MiB", limit=_MIB, detail=detail)]


def measured(words: list[str]) -> tuple[float, float]:
    """Seconds of CPU and MiB at most of one command of ours."""
    command = [sys.executable, "-m", "tau2_fleet", *words]
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=silent)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
