"""What PROFILE lines cost: the runner's CPU per simulation over HTTP, with them beside without, in turn."""

from __future__ import annotations

from statistics import median

from benchmarks.rows import Row
from benchmarks.whole_run import play

ALLOWED = 1.05
"""PROFILE on may cost a twentieth more."""


def rows(*, quick: bool) -> list[Row]:
    """The same retail run again and again, every other time at `log_level=PROFILE`."""
    runs = 2 if quick else 6
    trials = 1 if quick else 3
    cpu_ms: dict[str, list[float]] = {"INFO": [], "PROFILE": []}
    for _ in range(runs):
        for level, found in cpu_ms.items():
            run = play("experiment=simulated", "domain=retail", f"num_trials={trials}", f"log_level={level}")
            found.append(1000 * run.cpu_s / run.simulations)
    return [
        Row(
            "profiling/PROFILE lines/cpu",
            median(cpu_ms["PROFILE"]),
            median(cpu_ms["INFO"]),
            "ms/simulation",
            "log_level=INFO",
            goal=1 / ALLOWED,
            detail={"runs": {level: [round(value, 3) for value in found] for level, found in cpu_ms.items()}},
        )
    ]
