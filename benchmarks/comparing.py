"""What a comparison costs, and how well its intervals cover: paired t beside the BCa bootstrap of tasks.

The coverage study draws tasks of differing difficulty, and sides whose effects differ by task; scipy's BCa is the
other program. Both are for the expected difference on tasks like those drawn.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy

from benchmarks.pages import SIMULATIONS, write_long_run
from benchmarks.rows import Row
from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.paired import TaskPair
from tau2_fleet.paths import IMPORT_ROOT

MANY = 20_000
_SHAPES = {"50 tasks x 4": (50, 4, 2.0, 1.0), "20 tasks x 4": (20, 4, 2.0, 1.0), "9 tasks x 2": (9, 2, 2.0, 1.0)}


def rows(*, quick: bool) -> list[Row]:
    """CPU of comparing two runs, memory of two large ones, coverage of both intervals in percent."""
    with TemporaryDirectory() as folder:
        small = _compared(Path(folder), SIMULATIONS // 8 if quick else SIMULATIONS)
        large = _compared(Path(folder), 2_000 if quick else MANY, short=True)
    table = [
        Row("compare/two runs of 1,112/cpu", small[0], None, "s", limit=5.0, detail={"simulations": SIMULATIONS}),
        Row("compare/two runs of 20,000/memory", large[1], None, "MB", limit=600.0, detail={"simulations": MANY}),
    ]
    for name, (tasks, trials, first, second) in _SHAPES.items():
        ours, theirs = coverage(tasks, trials, first, second, rounds=100 if quick else 1000)
        table.append(
            Row(f"compare/coverage of 95%/{name}", 100 * ours, 100 * theirs, "%", "BCa bootstrap of tasks", more=True)
        )
    return table


def _compared(folder: Path, count: int, *, short: bool = False) -> tuple[float, float]:
    """Seconds of CPU and the peak of memory, MB, of a comparison in a process of its own."""
    runs = [folder / f"{count}-{side}" for side in "ab"]
    for seed, run in enumerate(runs):
        _write(run, count, seed, short)
    script = (
        "import resource, sys; from tau2_fleet import cli; status = cli.main(sys.argv[1:]); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "sys.stderr.write(f'{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}'); sys.exit(status)"
    )
    words = ["compare", "--baseline", str(runs[0]), "--candidate", str(runs[1]), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(IMPORT_ROOT), "XDG_CACHE_HOME": str(folder)},
    )
    cpu_s, memory = done.stderr.split()[-2:]
    return float(cpu_s), float(memory)


def _write(run: Path, count: int, seed: int, short: bool) -> None:
    if not short:
        write_long_run(run, count)
        return
    from tests.compare.runs import record

    luck = random.Random(seed)
    run.mkdir(parents=True)
    with (run / "simulations.jsonl").open("wb") as file:
        from tau2_fleet.record.line import encode_line

        for number in range(count):
            file.write(encode_line(record(f"retail/{number // 8}", number % 8, float(luck.random() < 0.6), seed)))


def coverage(tasks: int, trials: int, first: float, second: float, rounds: int) -> tuple[float, float]:
    """How often the paired t interval and the BCa one hold the expected difference; effects differ by task.

    Args:
        first: of the beta distribution of tasks' rates, with `second`.
    """
    from scipy.stats import bootstrap

    generator = numpy.random.default_rng(8)
    held = [0, 0]
    for _ in range(rounds):
        rates = generator.beta(first, second, tasks)
        # Each side's rate is drawn around the task's: effects differ by task and are nothing on average.
        sides = [numpy.clip(generator.normal(rates, 0.1), 0, 1) for _ in range(2)]
        counts = [generator.binomial(trials, side) for side in sides]
        pairs = [
            TaskPair(f"a/{number}", (int(one), trials), (int(two), trials))
            for number, (one, two) in enumerate(zip(*counts, strict=True))
        ]
        found = paired.of_tasks_like_these(pairs)
        assert found is not None
        interval = found.interval()
        held[0] += interval.low <= 0 <= interval.high
        differences = numpy.array([pair.difference for pair in pairs])
        if differences.any():
            theirs = bootstrap(
                (differences,), numpy.mean, n_resamples=999, method="BCa", rng=generator
            ).confidence_interval
            held[1] += bool(theirs.low <= 0 <= theirs.high)
        else:
            held[1] += 1
    return held[0] / rounds, held[1] / rounds
