"""What a hand does to a run: real runner and record, simulations that wait to be told how they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tau2_fleet.batch.auto_concurrency import AutoConcurrency
from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.batch.steering import Steering
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, State, Verb
from tau2_fleet.control.run_control import Playing, RunControl
from tau2_fleet.display.progress import Mode, Progress
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.simulation.simulate import SimulationJob
from tau2_fleet.telemetry.logs import setup
from tests.batch.records import make_record
from tests.batch.test_schedule import domain_tasks
from tests.waiting import until

HAND = "process 7"


@dataclass
class Scene:
    """A run of ten tasks, two at once."""

    run_dir: Path
    control: RunControl
    runner: Runner
    progress: Progress
    steering: Steering
    ends: dict[SimulationKey, asyncio.Future[str]] = field(default_factory=dict)

    def do(self, verb: Verb, task: str | None = None, **more: object) -> ControlAnswer:
        return self.control.do(ControlRequest(verb, task, **more), HAND)  # type: ignore[arg-type]

    def end(self, reason: str = "user_stop") -> SimulationKey:
        """End the one that began first."""
        key = next(key for key in self.ends if not self.ends[key].done())
        self.ends[key].set_result(reason)
        return key

    def cancel(self, key: SimulationKey, reason: str) -> bool:
        """As `Players.cancel`."""
        self.ends[key].set_result("infrastructure_error")
        return True

    @property
    def flying(self) -> list[str]:
        return [key.task_id for key in self.runner.playing]

    @property
    def state(self) -> State:
        return self.control.status(0.0, ()).state


def play(run_dir: Path, told: Callable[[Scene], Awaitable[None]]) -> Scene:
    """A run from its beginning to its end, with somebody at its socket."""

    async def whole() -> Scene:
        schedule = make_schedule(domain_tasks({"retail": 10}), seed=300, num_trials=1)
        limiters = Limiters()
        progress = Progress(schedule.totals, mode=Mode.off)

        async def simulate(job: SimulationJob) -> Record:
            future = scene.ends[job.key] = asyncio.get_running_loop().create_future()
            reason = await future
            return make_record(job.key, reason=reason, reward=float(reason == "user_stop"))

        with Store(run_dir) as store, setup(run_dir, logging.WARNING) as logs:
            runner = Runner(schedule, simulate, store, progress, max_concurrency=2, pause=limiters.pause)
            control = RunControl("a1b2c3d4", 0, schedule, store, progress.counters, limiters, logs)
            auto = AutoConcurrency({job.key: 1.0 for job in schedule.jobs}, most=5)
            steering = Steering(auto, runner, on=False, enough=lambda number: min(number, 8), paid=lambda: None)
            scene = Scene(run_dir, control, runner, progress, steering)
            async with steering:
                control.play(Playing(runner, scene, steering, []))
                running = asyncio.create_task(runner.run())
                await until(lambda: len(scene.flying) == 2)
                await told(scene)
                while not running.done():
                    for future in scene.ends.values():
                        if not future.done():
                            future.set_result("user_stop")
                    await asyncio.sleep(0)
                await running
        return scene

    return asyncio.run(whole())


def lines(run_dir: Path) -> int:
    return (run_dir / "simulations.jsonl").read_bytes().count(b"\n")


def test_a_paused_run_begins_nothing_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        assert scene.do(Verb.pause).done
        assert scene.runner.pause.on
        scene.end()
        await until(lambda: len(scene.flying) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (scene.flying, scene.state) == (["1"], State.paused)
        assert scene.do(Verb.resume).done
        await until(lambda: len(scene.flying) == 2)
        assert scene.state is State.running

    scene = play(tmp_path, told)
    assert lines(tmp_path) == 10
    assert scene.runner.stop_reason is None


def test_a_stop_ends_a_pause_so_that_what_is_in_flight_can_end(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        scene.do(Verb.pause)
        scene.runner.stop(RunEnd.INTERRUPTED)
        assert not scene.runner.pause.on
        assert not scene.do(Verb.pause).done

    play(tmp_path, told)
    assert lines(tmp_path) == 2


def test_a_drained_run_ends_with_what_is_in_flight_and_says_why(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        assert scene.do(Verb.drain).done
        assert scene.state is State.draining
        assert not scene.do(Verb.rerun, "1").done

    scene = play(tmp_path, told)
    assert lines(tmp_path) == 2
    assert scene.runner.stop_reason is RunEnd.DRAINED


def test_the_drain_of_a_sweep_ends_it_with_a_job_that_the_next_one_waits_for_alone(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        assert "its launcher's" in scene.do(Verb.drain, every=True).said[1]
        assert not scene.control.ends_sweep
        scene.control._leads_sweep = True
        assert "no further job begins" in scene.do(Verb.drain, every=True).said[1]
        assert scene.control.ends_sweep
        scene.do(Verb.resume)
        assert not scene.control.ends_sweep

    play(tmp_path, told)
    assert lines(tmp_path) == 10


def test_the_time_of_a_run_can_be_set_and_taken_away_while_it_goes_on(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        for value in ("soon", "-1", "0.0000001"):
            assert not scene.do(Verb.set, key="limits.run_timeout_s", value=value).done
        assert scene.do(Verb.set, key="limits.run_timeout_s", value="1000").done
        assert scene.do(Verb.set, key="limits.run_timeout_s", value="null").done

        def soon() -> bool:
            age_s = time.monotonic() - scene.runner.limits.began_s
            return scene.do(Verb.set, key="limits.run_timeout_s", value=f"{age_s + 0.2}").done

        await until(soon)  # which is refused where it has passed already
        await until(lambda: scene.runner.stopping)

    scene = play(tmp_path, told)
    assert scene.runner.stop_reason is RunEnd.TIMEOUT
    refused = scene.do(Verb.set, key="limits.max_cost_usd", value="1").said[0]
    assert "only max_concurrency, log_level and limits.run_timeout_s can be set" in refused


def test_a_drain_that_is_taken_back_ends_nothing(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        scene.do(Verb.drain)
        scene.do(Verb.pause)
        assert "once more" in scene.do(Verb.resume).said[0]
        assert scene.state is State.draining
        scene.do(Verb.resume)

    scene = play(tmp_path, told)
    assert lines(tmp_path) == 10
    assert scene.runner.stop_reason is None


def test_a_task_is_cancelled_in_flight_and_in_the_queue_and_both_can_run_again(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        scene.do(Verb.set, key="max_concurrency", value="1")
        flying = scene.do(Verb.cancel, "retail/0")
        assert flying.said == ("retail/0 trial 0: ended here, as an infrastructure error",)
        assert scene.do(Verb.cancel, "5").said == ("retail/5 trial 0: taken out of the queue",)
        assert not scene.do(Verb.cancel, "5").done
        await until(lambda: lines(tmp_path) == 1)
        assert scene.control.status(0.0, ()).withdrawn == 1
        assert scene.do(Verb.rerun, every=True).said == (
            "retail/0 trial 0: runs again, next",
            "retail/5 trial 0: runs again, next",
        )
        assert scene.progress.counters.overall().done == 0
        assert not scene.do(Verb.rerun, "0").done  # it is queued

    scene = play(tmp_path, told)
    assert lines(tmp_path) == 11
    assert all(entry.finished for entry in scene.runner.store.entries.values())
    overall = scene.progress.counters.overall()
    assert (overall.done, overall.errors, overall.to_repeat, overall.in_flight) == (10, 0, 0, 0)


def test_what_was_scored_never_runs_again_and_not_a_byte_of_the_record_changes(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        scene.end()
        await until(lambda: lines(tmp_path) == 1)
        before = (tmp_path / "simulations.jsonl").read_bytes()
        answer = scene.do(Verb.rerun, "retail/0")
        assert (answer.done, answer.refused) == (False, True)
        assert "nothing ever replaces" in answer.said[0]
        key = scene.end("infrastructure_error")
        await until(lambda: lines(tmp_path) == 2)
        assert scene.do(Verb.rerun, key.task_id).done
        assert not scene.do(Verb.rerun, "retail/0", trial=0).done
        assert (tmp_path / "simulations.jsonl").read_bytes().startswith(before)

    play(tmp_path, told)
    assert lines(tmp_path) == 11


def test_a_number_set_by_hand_stops_the_steering_until_auto_is_asked_for(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        assert scene.do(Verb.set, key="max_concurrency", value="auto").done
        assert scene.steering.on
        assert scene.runner.max_concurrency == 5  # the most that it may
        scene.do(Verb.set, key="max_concurrency", value="3")
        assert not scene.steering.on
        scene.do(Verb.set, key="max_concurrency", value="1000")
        assert scene.runner.max_concurrency == 8  # what there is room for
        assert (await asyncio.sleep(0, scene.steering.on)) is False

    play(tmp_path, told)


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_concurrency", "0"), ("max_concurrency", "many"), ("max_concurrency", "٣"), ("log_level", "LOUD"),
     ("agent.temperature", "0"), ("", "")],
)  # fmt: skip
def test_other_keys_and_impossible_values_are_refused_in_words(tmp_path: Path, key: str, value: str) -> None:
    async def told(scene: Scene) -> None:
        answer = scene.do(Verb.set, key=key, value=value)
        assert not answer.done
        assert f"{key}" in answer.said[0]
        assert scene.runner.max_concurrency == 2

    play(tmp_path, told)


def test_every_action_stands_in_the_log_whatever_its_level_and_refused_ones_too(tmp_path: Path) -> None:
    async def told(scene: Scene) -> None:
        scene.do(Verb.set, key="log_level", value="PROFILE")
        scene.do(Verb.pause)
        scene.do(Verb.cancel, "no\nsuch")
        scene.do(Verb.resume)
        assert logging.getLogger("tau2_fleet").level == 15

    scene = play(tmp_path, told)
    log = [line for line in (tmp_path / "run.log").read_text().splitlines() if " ctl " in line]
    assert [line.split(" ctl ")[1].partition(" (")[0] for line in log] == [
        "set log_level=PROFILE by process 7",
        "pause by process 7",
        "cancel no\\nsuch by process 7",
        "resume by process 7",
    ]
    assert [action.split()[2] for action in scene.control.by_hand] == ["set", "pause", "resume"]


@pytest.mark.parametrize(("task", "told"), [("nosuch", "no task nosuch"), ("retail", "fits several tasks")])
def test_a_name_that_fits_none_or_several_tasks_does_nothing(tmp_path: Path, task: str, told: str) -> None:
    async def scene(scene: Scene) -> None:
        answer = scene.do(Verb.cancel, task)
        assert not answer.done
        assert told in answer.said[0]

    play(tmp_path, scene)
    assert lines(tmp_path) == 10
