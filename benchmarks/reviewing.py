"""How well reviews find errors: faults put into conversations by a script, false alarms where none was, and how often
the interval of the corrected score holds the truth.

The conversations are the gold actions of every task in words (`benchmarks/played.py`), and a run of simulated models.
Each is played in its environment and scored; nothing of a review's rules is known to the script.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.played import FAULTS, Place, Script, play, script_of, script_of_record
from benchmarks.rows import Row
from tau2_fleet.analysis.reviews import ErrorKind, Party, Review
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import Task
from tau2_fleet.paths import IMPORT_ROOT
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.case import Case
from tau2_fleet.review.rules import review_by_rules
from tau2_fleet.review.scores import score

DOMAINS = ("retail", "airline", "telecom")
RESAMPLINGS = 200
_RECALL, _FALSE_ALARMS, _COVERAGE = 90.0, 5.0, 91.0
_HINDERS = ("early_stop", "refused_confirmation", "forgotten_fact", "wrong_value")
_FAILS = ("wrong_argument", "skipped_step", "policy_breach")


def rows(*, quick: bool) -> list[Row]:
    """Percent of the faults of each kind that were found, of untouched runs with a finding, and of intervals that
    hold."""
    limit = 15 if quick else None
    return asyncio.run(_rows(limit, 40 if quick else RESAMPLINGS))


async def _rows(limit: int | None, resamplings: int) -> list[Row]:
    scripts = _scripts(limit)
    put: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    idle: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for origin, domain, task, script in scripts:
        record = await play(domain, task, script)
        runs[origin] += 1
        alarms[origin] += bool(review_by_rules(case_of(domain, task, record)).marks)
        for kind, fault in FAULTS.items():
            changed = fault(Place(domain, task, script, random.Random(f"{origin} {domain.name} {task.id} {kind}")))
            if changed is None:
                continue
            record = await play(domain, task, changed)
            if record["reward"] == 1.0 and kind not in ("agents_work", "wrong_value"):
                idle[kind] += 1  # the benchmark itself finds nothing missing
                continue
            put[kind, origin] += 1
            marks = review_by_rules(case_of(domain, task, record)).marks
            found[kind, origin] += any(mark.kind == kind for mark in marks)
    table = [_recall(kind, put, found, idle[kind]) for kind in FAULTS]
    table += [
        Row(f"reviewing/false alarms/{origin}", 100 * alarms[origin] / runs[origin], None, "%", limit=_FALSE_ALARMS,
            detail={"runs": runs[origin], "with a finding": alarms[origin]})
        for origin in sorted(runs)
    ]  # fmt: skip
    held, width = await coverage([one for one in scripts if one[0] == "gold"], resamplings)
    table.append(
        Row("reviewing/coverage of 95%/corrected score", 100 * held["corrected"], 100 * held["raw"], "%", "raw score",
            limit=_COVERAGE, more=True, detail={"resamplings": resamplings, "half width": round(width, 3)})
    )  # fmt: skip
    return table


def _recall(kind: str, put: Counter[tuple[str, str]], found: Counter[tuple[str, str]], idle: int) -> Row:
    origins = [origin for one, origin in put if one == kind]
    total = sum(put[kind, origin] for origin in origins)
    right = sum(found[kind, origin] for origin in origins)
    detail: dict[str, Any] = {origin: f"{found[kind, origin]} of {put[kind, origin]}" for origin in sorted(origins)}
    side = ErrorKind(kind).party
    name = f"reviewing/found/{'customer' if side is Party.customer else 'agent'}/{kind}"
    value = 100 * right / total if total else 0.0
    return Row(name, value, None, "%", limit=_RECALL, more=True, detail={**detail, "without consequence": idle})


def case_of(domain: LocalDomain, task: Task, record: dict[str, Any]) -> Case:
    """A played record as a case."""

    def names(schemas: Sequence[dict[str, Any]]) -> frozenset[str]:
        return frozenset(str(schema["function"]["name"]) for schema in schemas)

    types = dict(domain.tool_types)
    return Case(record, domain.as_written(task), names(domain.agent_tools), names(domain.user_tools), types)


def _scripts(limit: int | None) -> list[tuple[str, LocalDomain, Task, Script]]:
    """Conversations without a fault, by origin: in words, and as simulated models have them."""
    simulated = _simulated_records(limit)
    found = []
    for name in DOMAINS:
        domain = load_domain(name)
        for task in domain.tasks(limit=limit):
            found.append(("gold", domain, task, script_of(task)))
            if (record := simulated.get((name, task.id))) is not None:
                found.append(("simulated", domain, task, script_of_record(record, task)))
    return found


def _simulated_records(limit: int | None) -> dict[tuple[str, str], dict[str, Any]]:
    """A run of simulated models, by domain and task."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["experiment=simulated", f"hydra.run.dir={run}", "report=false"]
        if limit is not None:
            words.append(f"num_tasks={limit}")
        subprocess.run(
            [sys.executable, "-m", "tau2_fleet", "run", *words],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(IMPORT_ROOT)},
        )
        return {(one.domain, one.task_id): one.as_dict() for one in LatestRecords(run)}


async def coverage(
    scripts: Sequence[tuple[str, LocalDomain, Task, Script]], resamplings: int, tasks: int = 60, trials: int = 2
) -> tuple[dict[str, float], float]:
    """How often the intervals of the raw and of the corrected score hold the agent's true rate, and the half width.

    Agents pass a task with a rate drawn for it; an eighth of the simulations has a customer that hinders, a sixteenth
    one that helps (a failure becomes a pass), whether or not the agent would have passed. All of it is played and
    reviewed as runs are; only which of the played conversations a resampling has is drawn.
    """
    pools = await _pools(scripts)
    luck = random.Random(19)
    held: Counter[str] = Counter()
    width = 0.0
    for _ in range(resamplings):
        reviews: list[Review] = []
        for number in range(tasks):
            pool = luck.choice(pools)
            rate = luck.betavariate(2.0, 1.2)
            for trial in range(trials):
                passes, fault = luck.random() < rate, luck.random()
                kind = "hindered" if fault < 1 / 8 else "helped" if fault < 3 / 16 else "plain"
                one = luck.choice(pool[kind, passes])
                key = SimulationKey("a", str(number), trial)
                reviews.append(Review(key, one.reward, one.verdict, one.marks))
        figures = score(reviews)
        truth = 2.0 / 3.2
        for name, estimate in (("raw", figures.raw), ("corrected", figures.corrected)):
            assert estimate is not None
            assert estimate.low is not None
            assert estimate.high is not None
            held[name] += estimate.low <= truth <= estimate.high
            width += (estimate.high - estimate.low) / 2 / resamplings if name == "corrected" else 0.0
    return {name: count / resamplings for name, count in held.items()}, width


async def _pools(
    scripts: Sequence[tuple[str, LocalDomain, Task, Script]],
) -> list[dict[tuple[str, bool], list[Review]]]:
    """For each task, reviews of what a passing and a failing agent come to with each kind of customer."""
    pools = []
    for _, domain, task, script in scripts:
        reviewed = partial(_reviewed, domain, task, script, random.Random(f"{domain.name} {task.id}"))
        failing = [one for fault in _FAILS if (one := await reviewed(fault)) is not None and one.reward < 1]
        hindered = [one for fault in _HINDERS if (one := await reviewed(fault)) is not None and one.reward < 1]
        both = [one for fault in _FAILS for customer in ("early_stop", "refused_confirmation")
                if (one := await reviewed(fault, customer)) is not None and one.reward < 1]  # fmt: skip
        plain, helped = await reviewed(), await reviewed("agents_work")
        assert plain is not None
        if failing and hindered and both and helped is not None and plain.reward == 1:
            pools.append(
                {
                    ("plain", True): [plain], ("plain", False): failing,
                    ("hindered", True): hindered, ("hindered", False): both,
                    ("helped", True): [helped], ("helped", False): [helped],
                }
            )  # fmt: skip
    return pools


async def _reviewed(
    domain: LocalDomain, task: Task, script: Script, luck: random.Random, *faults: str
) -> Review | None:
    """The review of a conversation with these faults; None where one finds no room."""
    changed: Script | None = script
    for fault in faults:
        changed = changed and FAULTS[fault](Place(domain, task, changed, luck))
    if changed is None:
        return None
    return review_by_rules(case_of(domain, task, await play(domain, task, changed)))
