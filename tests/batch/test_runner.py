from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.batch.run_end import Limits, RunEnd
from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.record.store import Entry, Store
from tau2_fleet.run.money import Purse
from tau2_fleet.simulation.simulate import SimulationJob
from tests.batch.records import make_record
from tests.batch.test_schedule import domain_tasks
from tests.waiting import CEILING_S


@dataclass
class Watcher:
    begun: list[SimulationKey] = field(default_factory=list)
    ended: list[SimulationKey] = field(default_factory=list)

    def started(self, domain: str, task_id: str, trial: int) -> None:
        self.begun.append(SimulationKey(domain, task_id, trial))

    def finished(
        self, domain: str, task_id: str, trial: int, reward: float | None, reason: str, cost_usd: float
    ) -> None:
        self.ended.append(SimulationKey(domain, task_id, trial))


def make_runner(
    directory: Path, simulate: Callable[[SimulationJob], Awaitable[Record]], sizes: dict[str, int], **options: Any
) -> Runner:
    schedule = make_schedule(domain_tasks(sizes), seed=300, num_trials=1)
    return Runner(schedule, simulate, Store(directory), Watcher(), **options)


def watched(runner: Runner) -> Watcher:
    assert isinstance(runner.watcher, Watcher)
    return runner.watcher


def test_all_simulations_are_run_and_never_more_at_once_than_allowed(tmp_path: Path):
    in_flight = peak = 0

    async def simulate(job: SimulationJob) -> Record:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return make_record(job.key)

    runner = make_runner(tmp_path, simulate, {"retail": 20, "mock": 9}, max_concurrency=7)
    asyncio.run(runner.run())
    assert len(runner.store.entries) == 29
    assert peak == 7
    assert sorted(watched(runner).ended) == sorted(watched(runner).begun)


def test_a_stop_lets_simulations_in_flight_end_and_begins_no_other(tmp_path: Path):
    release = asyncio.Event()

    async def simulate(job: SimulationJob) -> Record:
        await release.wait()
        return make_record(job.key)

    async def scene() -> Runner:
        runner = make_runner(tmp_path, simulate, {"retail": 10}, max_concurrency=3)
        running = asyncio.create_task(runner.run())
        while len(watched(runner).begun) < 3:
            await asyncio.sleep(0)
        runner.stop(RunEnd.INTERRUPTED)
        release.set()
        await running
        return runner

    runner = asyncio.run(scene())
    assert len(runner.store.entries) == 3
    assert runner.stop_reason is RunEnd.INTERRUPTED


def test_after_the_grace_time_what_is_in_flight_is_given_up(tmp_path: Path):
    cancelled = []

    async def simulate(job: SimulationJob) -> Record:
        if job.key.task_id == "0":
            return make_record(job.key)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(job.key)
            raise
        return make_record(job.key)

    async def scene() -> Runner:
        runner = make_runner(tmp_path, simulate, {"retail": 5}, max_concurrency=2, limits=Limits(grace_s=0.01))
        running = asyncio.create_task(runner.run())
        while len(watched(runner).begun) < 3:
            await asyncio.sleep(0)
        runner.stop(RunEnd.INTERRUPTED)
        await running
        return runner

    runner = asyncio.run(scene())
    assert set(runner.store.entries) == {SimulationKey("retail", "0", 0)}
    assert len(cancelled) == 2


def test_an_abort_ends_at_once(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        await asyncio.Event().wait()
        raise AssertionError

    async def scene() -> None:
        runner = make_runner(tmp_path, simulate, {"retail": 5}, max_concurrency=2, limits=Limits(grace_s=3600))
        running = asyncio.create_task(runner.run())
        while not watched(runner).begun:
            await asyncio.sleep(0)
        runner.stop(RunEnd.INTERRUPTED)
        runner.abort()
        await asyncio.wait_for(running, CEILING_S)

    asyncio.run(scene())


def test_the_budget_ends_the_run_and_counts_earlier_attempts(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        return make_record(job.key)

    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("airline", "0", 0)))
    runner = make_runner(tmp_path, simulate, {"retail": 10}, max_concurrency=1)
    runner.purse = Purse(tmp_path, runner.store, 1.0, in_sweep=False)
    asyncio.run(runner.run())
    assert runner.stop_reason is RunEnd.BUDGET
    assert runner.store.cost_usd == pytest.approx(1.0)
    assert len(runner.store.entries) == 4


def test_a_run_that_is_resumed_beyond_its_budget_begins_nothing(tmp_path: Path):
    """Also where all was spent on simulations that failed and were run again: each of their lines has cost."""

    async def simulate(job: SimulationJob) -> Record:
        return make_record(job.key)

    with Store(tmp_path) as store:
        for attempt in range(4):
            store.append(make_record(SimulationKey("retail", "0", 0), reason="infrastructure_error", attempt=attempt))
    runner = make_runner(tmp_path, simulate, {"retail": 10}, max_concurrency=5)
    runner.purse = Purse(tmp_path, runner.store, 1.0, in_sweep=False)
    asyncio.run(runner.run())
    assert runner.stop_reason is RunEnd.BUDGET
    assert runner.stop_detail == "spent $1.00 of limits.max_cost_usd=1"
    assert watched(runner).begun == []


def test_the_run_timeout_ends_the_run(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        await asyncio.Event().wait()
        raise AssertionError

    limits = Limits(run_timeout_s=0.01, grace_s=0.01)
    runner = make_runner(tmp_path, simulate, {"retail": 3}, max_concurrency=2, limits=limits)
    asyncio.run(runner.run())
    assert runner.stop_reason is RunEnd.TIMEOUT


def test_the_time_before_the_simulations_counts_towards_the_run_timeout(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        await asyncio.Event().wait()
        raise AssertionError

    limits = Limits(run_timeout_s=3600, grace_s=0.01, began_s=time.monotonic() - 3601)
    runner = make_runner(tmp_path, simulate, {"retail": 3}, max_concurrency=2, limits=limits)
    asyncio.run(asyncio.wait_for(runner.run(), CEILING_S))
    assert runner.stop_reason is RunEnd.TIMEOUT


def test_a_store_that_fails_ends_the_run_with_its_error(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        await asyncio.sleep(0)
        return make_record(job.key)

    runner = make_runner(tmp_path, simulate, {"retail": 6}, max_concurrency=3)

    def full(record: Record) -> Entry:
        raise UserError("no space left")

    runner.store.append = full  # type: ignore[method-assign]
    with pytest.raises(UserError, match="no space left"):
        asyncio.run(runner.run())


def test_a_prompt_that_cannot_be_stored_ends_the_run_not_its_simulation(tmp_path: Path):
    async def simulate(job: SimulationJob) -> Record:
        runner.keep_prompt("abc", "You are an agent.")
        await asyncio.sleep(0)
        return make_record(job.key)

    runner = make_runner(tmp_path, simulate, {"retail": 6}, max_concurrency=3)

    def full(digest: str, text: str) -> None:
        raise UserError("no space left")

    runner.store.keep_prompt = full  # type: ignore[method-assign]
    with pytest.raises(UserError, match="no space left"):
        asyncio.run(runner.run())
    assert not runner.store.entries


@pytest.mark.parametrize("concurrency", [1, 3])
def test_what_comes_out_of_a_simulation_ends_the_run_with_that_failure(tmp_path: Path, concurrency: int):
    async def simulate(job: SimulationJob) -> Record:
        if job.key.task_id == "1":
            raise RuntimeError("a fault of the program")
        await asyncio.sleep(0)
        return make_record(job.key)

    runner = make_runner(tmp_path, simulate, {"retail": 60}, max_concurrency=concurrency)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        asyncio.run(runner.run())
    assert runner.stop_reason is RunEnd.FATAL
    assert len(watched(runner).begun) < 60


def test_more_or_fewer_run_at_once_from_the_moment_it_is_said_and_none_is_broken_off(tmp_path: Path):
    let_go = asyncio.Semaphore(0)

    async def simulate(job: SimulationJob) -> Record:
        await let_go.acquire()
        return make_record(job.key)

    async def settle() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def scene() -> Runner:
        runner = make_runner(tmp_path, simulate, {"retail": 60}, max_concurrency=3)
        running = asyncio.create_task(runner.run())
        await settle()
        assert (runner.in_flight, runner.queued) == (3, 57)
        runner.set_concurrency(20)
        await settle()
        assert runner.in_flight == 20
        runner.set_concurrency(0)
        await settle()
        assert runner.in_flight == 20
        for _ in range(19):
            let_go.release()
        await settle()
        assert (runner.in_flight, len(runner.store.entries)) == (1, 19)
        runner.set_concurrency(1000)
        for _ in range(60):
            let_go.release()
        await asyncio.wait_for(running, CEILING_S)
        return runner

    runner = asyncio.run(scene())
    assert len(watched(runner).begun) == len(set(watched(runner).begun)) == len(runner.store.entries) == 60
