"""The write path: what it costs to store one more simulation, ours beside the package's checkpoint file.

Both sides store the gold conversations of retail again and again, each in a process of its own. The package reads
and rewrites its whole file for every simulation (`_save` in `tau2/run.py`), so it gets fewer of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice, pairwise
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.rows import Row

if TYPE_CHECKING:
    from tau2_fleet.record.line import Record

DOMAIN = "retail"
_FLAT = 1.3
"""How much more the last appends may cost than the first: what clocks and caches do."""
_KIB_EACH = 2.0
"""What may be kept in memory of each stored simulation."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One side."""

    appends_ms: list[float]
    """CPU time of each append, in their order."""
    kib_each: float | None = None
    """Growth of the process for each simulation after the first tenth."""
    reopened_s: float | None = None
    """Time to take up again what is stored."""
    line_kib: float | None = None
    """Mean size of a record."""


def rows(*, quick: bool) -> list[Row]:
    """Append 10,000 (quick: 2,000) with ours and 300 (100) with the package's."""
    many, few = (2_000, 100) if quick else (10_000, 300)
    tenth = many // 10
    ours, theirs = _measure("ours", many), _measure("package", few)
    assert ours.kib_each is not None
    first, last = fmean(ours.appends_ms[:tenth]), fmean(ours.appends_ms[-tenth:])
    detail = {
        "record_kib": ours.line_kib,
        "series_ms": _series(ours.appends_ms),
        "package_ms": _series(theirs.appends_ms),
    }
    table = [
        Row(
            f"store/append after {stored}",
            _around(ours.appends_ms, stored),
            _around(theirs.appends_ms, stored),
            "ms",
            detail=detail if stored == few else {},
        )
        for stored in (few // 4, few)
    ]
    return [
        *table,
        Row(f"store/append, first {tenth:,}", first, None, "ms"),
        Row(f"store/append, last {tenth:,} of {many:,}", last, None, "ms"),
        Row("store/append, last tenth by first", last / first, None, "×", limit=_FLAT),
        Row("store/memory for each one stored", ours.kib_each, None, "KiB", limit=_KIB_EACH),
        Row(f"store/take up {many:,} again", ours.reopened_s or 0.0, None, "s"),
    ]


def _around(appends_ms: list[float], stored: int) -> float:
    """The median cost of the ten appends up to the one after which so many are stored."""
    return median(appends_ms[max(0, stored - 10) : stored])


def _series(appends_ms: list[float], points: int = 20) -> list[float]:
    """Means of equal parts, in order."""
    size = max(1, len(appends_ms) // points)
    return [round(fmean(appends_ms[start : start + size]), 4) for start in range(0, len(appends_ms), size)]


def _measure(side: str, number: int) -> Measured:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.store", side, str(number)],
        capture_output=True,
        text=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    if done.returncode:
        raise RuntimeError(f"storing with {side} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _records() -> Iterator[Record]:
    """Records of gold conversations without end, every one of another (task, trial)."""
    import asyncio

    from benchmarks.scripted import ReplayModel, record
    from tau2_fleet.benchmark import prompts
    from tau2_fleet.benchmark.domains import load_domain
    from tau2_fleet.record.line import SimulationKey
    from tau2_fleet.simulation.conversation import Rules
    from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
    from tau2_fleet.simulation.roles import Roles
    from tau2_fleet.simulation.simulate import Simulation, SimulationJob

    domain = load_domain(DOMAIN)
    model = ReplayModel(record(domain))
    stage = DomainContext(
        domain,
        SimulationSettings("bench", Roles(agent=model, user=model), Rules(stop_tokens=prompts.STOP_TOKENS)),
    )

    async def play() -> list[Record]:
        jobs = [(task, SimulationJob(SimulationKey(DOMAIN, task.id, 0), 300, 0)) for task in domain.tasks()]
        return [await Simulation(stage, task, job, lambda *_: None).run() for task, job in jobs]

    played = asyncio.run(play())
    for trial in count():
        for one in played:
            yield dataclasses.replace(one, trial=trial)


def _ours(number: int) -> Measured:
    from tau2_fleet.record.store import Store

    records = _records()
    spent: list[float] = []
    with TemporaryDirectory() as folder:
        with Store(Path(folder)) as store:
            before = 0
            for position, record in enumerate(islice(records, number)):
                if position == number // 10:
                    before = _resident_bytes()
                begun = time.thread_time()
                store.append(record)
                spent.append(1000 * (time.thread_time() - begun))
            grown = _resident_bytes() - before
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        begun = time.thread_time()
        with Store(Path(folder)) as store:
            reopened_s = time.thread_time() - begun
            if len(store.entries) != number:
                raise AssertionError(f"{len(store.entries)} of {number} were stored")
    return Measured(spent, grown / 1024 / (number * 0.9), reopened_s, size / number / 1024)


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _package(number: int) -> Measured:
    """The package's `run_tasks` with simulations that are there already: what is left of it is its saving."""
    import tau2.run as package
    from tau2.data_model.simulation import SimulationRun
    from tau2.registry import registry

    from tau2_fleet.record.results import as_simulation_run

    one_each = list(islice(_records(), 114))
    known = {
        record.task_id: SimulationRun.model_validate(as_simulation_run(json.loads(record.as_line())))
        for record in one_each
    }
    tasks = [task for task in registry.get_tasks_loader(DOMAIN)() if task.id in known][:50]
    clock: list[float] = []

    def run_task(*_: Any, task: Any, **__: Any) -> SimulationRun:
        simulation = known[task.id].model_copy()
        clock.append(time.thread_time())
        return simulation

    package.run_task = run_task
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        package.run_tasks(
            DOMAIN,
            tasks,
            "llm_agent",
            "user_simulator",
            llm_agent="none",
            llm_args_agent={},
            llm_user="none",
            llm_args_user={},
            # One more than asked for: a save ends when the next task begins.
            num_trials=-(-(number + 1) // len(tasks)),
            max_concurrency=1,
            save_to=path,
            console_display=False,
            log_level="ERROR",
        )
        if len(json.loads(path.read_text())["simulations"]) != len(clock):
            raise AssertionError("the package did not store all")
    return Measured([1000 * (after - before) for before, after in pairwise(clock)][:number])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("ours", "package"))
    parser.add_argument("number", type=int)
    arguments = parser.parse_args()
    measured = _ours(arguments.number) if arguments.side == "ours" else _package(arguments.number)
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
