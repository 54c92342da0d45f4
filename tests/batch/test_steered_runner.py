"""A run that is held, drained, given other work or another end while it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tau2_fleet.batch.run_end import Limits, RunEnd
from tau2_fleet.batch.runner import Runner
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.simulation.simulate import SimulationJob
from tests.batch.records import make_record
from tests.batch.test_runner import make_runner, watched
from tests.waiting import CEILING_S


def key(task: int) -> SimulationKey:
    return SimulationKey("retail", str(task), 0)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    folder: Path, tasks: int, limits: Limits | None = None
) -> AsyncIterator[tuple[Runner, asyncio.Semaphore]]:
    """A run with two in flight, and what lets one of them end; it is waited for at the end."""
    let_go = asyncio.Semaphore(0)

    async def simulate(job: SimulationJob) -> Record:
        await let_go.acquire()
        return make_record(job.key)

    runner = make_runner(folder, simulate, {"retail": tasks}, max_concurrency=2, limits=limits)
    run = asyncio.create_task(runner.run())
    await settle()
    yield runner, let_go
    await asyncio.wait_for(run, CEILING_S)
    assert runner.over


def test_a_held_run_begins_nothing_until_it_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 5) as (runner, let_go):
            assert runner.playing == [key(0), key(1)]
            assert runner.left() == [key(task) for task in range(5)]
            runner.hold()
            for _ in range(5):
                let_go.release()
            await settle()
            assert (runner.in_flight, runner.queued, runner.pause.on, runner.closed) == (0, 3, True, False)
            runner.go_on()
            await settle()
            assert (runner.queued, runner.pause.on, runner.closed, runner.stopping) == (0, False, True, False)
        assert (runner.stop_reason, len(runner.store.entries), runner.left()) == (None, 5, [])

    asyncio.run(scene())


def test_a_drained_run_ends_with_what_is_in_flight_and_is_told_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 5) as (runner, let_go):
            runner.hold()
            runner.drain()
            assert (runner.draining, runner.pause.on, runner.closed) == (True, False, False)
            let_go.release()
            await settle()
            assert (runner.in_flight, runner.queued, runner.closed) == (1, 3, False)
            let_go.release()
        assert (runner.stop_reason, runner.stop_detail) == (RunEnd.DRAINED, "drained: nothing further was to begin")
        assert list(runner.store.entries) == [key(0), key(1)]

    asyncio.run(scene())


def test_a_drain_is_taken_back_and_a_hold_before_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 4) as (runner, let_go):
            runner.drain()
            runner.hold()
            runner.go_on()
            assert (runner.draining, runner.pause.on) == (True, False)
            runner.go_on()
            assert not runner.draining
            for _ in range(4):
                let_go.release()
        assert (runner.stop_reason, len(runner.store.entries)) == (None, 4)

    asyncio.run(scene())


def test_a_drain_with_nothing_left_to_begin_is_no_end_of_its_own(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 2) as (runner, let_go):
            runner.drain()
            let_go.release()
            let_go.release()
        assert runner.stop_reason is None

    asyncio.run(scene())


def test_simulations_are_taken_out_of_the_queue_and_put_before_all_others(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 6) as (runner, let_go):
            jobs = {job.key: job for job in runner.schedule.jobs}
            assert runner.withdraw({key(0), key(3), key(5)}) == [key(3), key(5)]
            assert runner.withdraw({key(0)}) == []
            assert (set(runner.withdrawn), runner.queued) == ({key(3), key(5)}, 2)
            runner.run_next([jobs[key(5)]])
            assert (set(runner.withdrawn), runner.queued) == ({key(3)}, 3)
            for _ in range(6):
                let_go.release()
        assert watched(runner).begun == [key(0), key(1), key(5), key(2), key(4)]
        assert (runner.stop_reason, runner.left()) == (None, [])

    asyncio.run(scene())


def test_a_run_whose_last_work_is_taken_out_is_over_once_nothing_is_in_flight(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 3) as (runner, let_go):
            let_go.release()
            let_go.release()
            runner.hold()
            await settle()
            assert (runner.in_flight, runner.closed) == (0, False)
            runner.withdraw({key(2)})
            assert runner.closed
        assert len(runner.store.entries) == 2

    asyncio.run(scene())


def test_another_time_limit_counts_from_the_runs_beginning(tmp_path: Path) -> None:
    async def scene() -> None:
        limits = Limits(run_timeout_s=3600, grace_s=0.01, began_s=time.monotonic() - 60)
        async with running(tmp_path, 3, limits) as (runner, _):
            runner.set_run_timeout(None)
            runner.set_run_timeout(61 + 3600)
            await settle()
            assert not runner.stopping
            runner.set_run_timeout(59)
            await settle()
            assert runner.stopping
            assert runner.withdraw({key(2)}) == [key(2)]
        assert (runner.stop_reason, runner.stop_detail) == (RunEnd.TIMEOUT, "longer than limits.run_timeout_s=59")

    asyncio.run(scene())


def test_the_first_reason_of_a_stop_stands_and_a_stop_ends_a_hold(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 3) as (runner, let_go):
            runner.hold()
            runner.stop(RunEnd.SPOILT, "spoilt")
            runner.stop(RunEnd.INTERRUPTED, "late")
            assert (runner.pause.on, runner.stopping) == (False, True)
            let_go.release()
            let_go.release()
        assert (runner.stop_reason, runner.stop_detail) == (RunEnd.SPOILT, "spoilt")
        assert runner.left() == [key(2)]

    asyncio.run(scene())


def test_a_run_without_work_is_over_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, 0) as (runner, _):
            assert runner.closed
        assert runner.stop_reason is None

    asyncio.run(scene())
