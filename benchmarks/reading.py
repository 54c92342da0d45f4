"""`tau2-fleet show` and `rescore` of 20,000 conversations of 30 to 60 messages: CPU and memory.

Each command is a process of its own, its start included; `show` is run three times, and the quickest counts.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.exports import measured
from benchmarks.pages import write_long_run
from benchmarks.rows import Row

SIMULATIONS = 20_000
_QUICK = 2_000
_SHOWN_PER_SECOND = 10_000
_MIB = 200


def rows(*, quick: bool) -> list[Row]:
    """Simulations per second of CPU, and the most memory."""
    count = _QUICK if quick else SIMULATIONS
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        write_long_run(directory, count)
        size = (directory / "simulations.jsonl").stat().st_size
        shown = [measured(["show", str(directory)]) for _ in range(3)]
        rescored_s, rescored_mib = measured(["rescore", str(directory)])
    detail = {"simulations": count, "kB each": round(size / count / 1000, 1)}
    per_second = count / min(cpu_s for cpu_s, _ in shown)
    limit = None if quick else _SHOWN_PER_SECOND  # the start of the program weighs more on a few
    return [
        Row("reading/show", per_second, None, "/s", more=True, limit=limit, detail=detail),
        Row("reading/show/memory", max(mib for _, mib in shown), None, "MiB", limit=_MIB, detail=detail),
        Row("reading/rescore", count / rescored_s, None, "/s", more=True, detail=detail),
        Row("reading/rescore/memory", rescored_mib, None, "MiB", limit=_MIB, detail=detail),
    ]
