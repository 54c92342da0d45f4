"""A fleet of real processes from start to stop: readiness, death, hanging, restart, routing, samples, sweeps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet import devices
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.lease import FleetLease
from tau2_fleet.fleet.replica import Phase
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import FatalModelError
from tau2_fleet.telemetry.events import ReplicaSample, ReplicaState
from tests.fleet.support import QUICK, children_of, fake_pool, fake_settings, hasten, heard, run
from tests.waiting import CEILING_S, Clock, all_gone, gone, until


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    """A started fleet; nothing of it is left afterwards."""
    await fleet.start()
    pids = [status.pid for status in fleet.status() if status.pid]
    try:
        yield fleet
    finally:
        pids += [status.pid for status in fleet.status() if status.pid]
        await fleet.stop()
        await until(lambda: all(map(gone, pids)))


def fleet_of(folder: Path, *pools: PoolSpec, **settings: Any) -> Fleet:
    return Fleet(pools or (fake_pool(folder),), fake_settings(folder, **settings), folder, watch=QUICK)


async def all_ready(fleet: Fleet, number: int) -> list[Endpoint]:
    return await until(lambda: endpoints if len(endpoints := fleet.endpoints()) == number else None)


async def chat(endpoint: Endpoint, text: str = "hello") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": text}]}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{endpoint.base_url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.status == 200
        return await response.json(content_type=None)


def test_a_fleet_starts_answers_and_stops_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        fleet = fleet_of(tmp_path, fake_pool(tmp_path, 2, deaf=True, children=True, max_model_len=777))
        async with running(fleet):
            await all_ready(fleet, 2)
            endpoint = await fleet.router("agent").acquire("s")
            assert (await chat(endpoint))["choices"][0]["message"]["content"] == "It is sunny."
            assert fleet.context_limit("agent") == 777
            kin = [pid for number in (0, 1) for pid in children_of(fleet.logs / f"agent-{number}.log")]
            assert len(kin) == 4
        await until(lambda: all(map(gone, kin)))
        assert {status.phase for status in fleet.status()} == {Phase.stopped}

    run(scenario)


def test_the_run_begins_with_the_first_ready_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        quick = fake_pool(tmp_path, 1)
        fleet = fleet_of(tmp_path, replace(quick, num=2), stagger_s=600)
        async with running(fleet):
            assert len(fleet.endpoints()) == 1
            assert [status.phase for status in fleet.status()] == [Phase.ready, Phase.planned]

    run(scenario)


def test_replicas_that_share_a_gpu_start_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)  # those of this machine are not asked

    async def scenario() -> None:
        pool = replace(fake_pool(tmp_path, 4), min_ready=4)
        with heard() as events:
            async with running(fleet_of(tmp_path, pool, device=Device.auto, gpu_ids=[6, 6, 7, 7])):
                pass
        told = [(event.replica, event.state) for event in events if isinstance(event, ReplicaState)]
        for first, second in (("agent/0", "agent/1"), ("agent/2", "agent/3")):
            assert told.index((first, "ready")) < told.index((second, "starting"))
        assert told.index(("agent/2", "starting")) < told.index(("agent/1", "starting"))

    run(scenario)


def test_one_that_fails_lets_the_next_one_on_its_gpu_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)  # those of this machine are not asked

    async def scenario() -> None:
        failing = fake_pool(tmp_path, status=1, log="unrecognized arguments", status_once=str(tmp_path / "once"))
        async with running(fleet_of(tmp_path, failing, device=Device.auto, gpu_ids=[7, 7])) as fleet:
            assert [status.phase for status in fleet.status()] == [Phase.failed, Phase.ready]

    run(scenario)


def test_min_ready_replicas_are_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(fleet_of(tmp_path, replace(fake_pool(tmp_path, 3), min_ready=3))) as fleet:
            assert len(fleet.endpoints()) == 3

    run(scenario)


def test_a_killed_replica_leaves_the_routing_is_restarted_and_its_sessions_spread(tmp_path: Path) -> None:
    async def scenario() -> None:
        with heard() as events:
            async with running(fleet_of(tmp_path, fake_pool(tmp_path, 3, children=True))) as fleet:
                await all_ready(fleet, 3)
                router = fleet.router("agent")
                homes = {f"s{number}": await router.acquire(f"s{number}") for number in range(9)}
                lost = homes["s0"]
                before = next(status for status in fleet.status() if status.name == lost.name)
                kin = children_of(fleet.logs / f"{lost.name.replace('/', '-')}.log")
                assert before.pid is not None
                os.kill(before.pid, signal.SIGKILL)
                await until(lambda: len(fleet.endpoints()) == 2)
                for session, home in homes.items():
                    router.release(home, session, failed=home is lost)
                    assert (await router.acquire(session, home if home is lost else None)).name != lost.name or (
                        home is not lost
                    )
                await all_ready(fleet, 3)
                after = next(status for status in fleet.status() if status.name == lost.name)
                assert after.pid != before.pid
                assert after.port == before.port
                assert fleet.restarts == after.restarts == 1
                await until(lambda: all(map(gone, kin)))
        states = [event.state for event in events if isinstance(event, ReplicaState) and event.replica == lost.name]
        assert [state for state in states if state != "starting"] == ["ready", "down", "restarting", "ready", "stopped"]

    run(scenario)


def test_a_replica_that_ends_with_status_0_is_restarted_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(fleet_of(tmp_path, fake_pool(tmp_path, 1, die_on="kill the engine"))) as fleet:
            [endpoint] = fleet.endpoints()
            with pytest.raises(aiohttp.ClientError):
                await chat(endpoint, "kill the engine")
            fleet.router("agent").release(endpoint, "s", failed=True)
            await until(lambda: fleet.restarts == 1)
            [again] = await all_ready(fleet, 1)
            await chat(again)

    run(scenario)


def test_a_hanging_replica_leaves_the_routing_and_is_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        watch = replace(QUICK, hang_after=2)
        async with running(Fleet([fake_pool(tmp_path)], fake_settings(tmp_path), tmp_path, watch=watch)) as fleet:
            await all_ready(fleet, 2)
            hanging = fleet.status()[0]
            assert hanging.pid is not None
            hasten(watch, health_timeout_s=0.5)
            os.kill(hanging.pid, signal.SIGSTOP)
            await until(lambda: "agent/0" not in [one.name for one in fleet.endpoints()])
            await until(lambda: fleet.status()[0].restarts == 1)
            hasten(watch, health_timeout_s=60.0)
            await all_ready(fleet, 2)
            assert gone(hanging.pid)

    run(scenario)


def test_a_replica_that_answers_again_in_time_is_not_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        patient = replace(QUICK, hang_after=1000)
        fleet = Fleet([fake_pool(tmp_path)], fake_settings(tmp_path), tmp_path, watch=patient)
        async with running(fleet):
            await all_ready(fleet, 2)
            pid = fleet.status()[0].pid
            assert pid is not None
            hasten(patient, health_timeout_s=0.5)
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: "agent/0" not in [one.name for one in fleet.endpoints()])
            hasten(patient, health_timeout_s=60.0)
            os.kill(pid, signal.SIGCONT)
            await all_ready(fleet, 2)
            assert fleet.status()[0].pid == pid
            assert fleet.restarts == 0

    run(scenario)


def test_a_failed_request_makes_a_dead_replica_known_at_once(tmp_path: Path) -> None:
    """Long before the next look is due."""

    async def scenario() -> None:
        slow = replace(QUICK, process_s=600.0, health_s=600.0)
        fleet = Fleet([fake_pool(tmp_path)], fake_settings(tmp_path), tmp_path, watch=slow)
        async with running(fleet):
            await all_ready(fleet, 2)
            lost = fleet.endpoints()[0]
            pid = fleet.status()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: gone(pid))
            fleet.router("agent").release(lost, "s", failed=True)
            await until(lambda: lost not in fleet.endpoints())

    run(scenario)


def test_restarts_are_bounded_and_then_requests_fail_in_place_of_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        flag = tmp_path / "well"
        flag.touch()
        pool = fake_pool(tmp_path, 1, status=1, status_unless=str(flag), log="RuntimeError: the GPU fell off the bus")
        fleet = Fleet([pool], fake_settings(tmp_path), tmp_path, watch=replace(QUICK, max_attempts=3, backoff_s=0.01))
        async with running(fleet):
            flag.unlink()
            pid = fleet.status()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: fleet.status()[0].phase is Phase.failed)
            assert fleet.restarts == 2
            with pytest.raises(FatalModelError, match="no server of pool agent is left: server agent/0 ended with"):
                await fleet.router("agent").acquire("s")
            assert "the GPU fell off the bus" in (fleet.status()[0].failure or "")

    run(scenario)


def test_one_replica_that_does_not_start_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown with its command and the telling lines, and tried again."""

    async def scenario() -> None:
        once = tmp_path / "once"
        pool = fake_pool(tmp_path, 3, status=1, status_once=str(once), log="ValueError: today is Friday")
        async with running(fleet_of(tmp_path, pool)) as fleet:
            await all_ready(fleet, 3)
            assert fleet.restarts == 1
        shown = [record.getMessage() for record in caplog.records if "ended with status 1" in record.getMessage()]
        assert len(shown) == 1
        assert "ValueError: today is Friday" in shown[0]
        assert "started again in" in shown[0]
        assert "command: " in shown[0]

    run(scenario)


def test_a_pool_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = "INFO loading\nvllm serve: error: unrecognized arguments: --no-such-flag"
        fleet = fleet_of(tmp_path, fake_pool(tmp_path, 2, status=2, log=log))
        with pytest.raises(UserError) as caught:
            await fleet.start()
        text = str(caught.value)
        assert "pool agent: 0 of 2 server(s) became ready. server agent/" in text
        assert "ended with status 2" in text
        assert "vllm does not take these flags: mend extra_args" in text
        assert "unrecognized arguments: --no-such-flag" in text
        assert "VLLM_API_KEY=*** " in text
        assert f"{tmp_path}/vllm serve {tmp_path}/model --host 127.0.0.1 --port " in text
        assert f"log: {tmp_path}/servers/agent-" in text
        assert fleet.status()[0].restarts == 0, "a bad flag is not tried again"
        assert all(status.pid is None for status in fleet.status())

    run(scenario)


@pytest.mark.parametrize(
    ("habits", "last_words", "why"),
    [
        ({"never_ready": True, "log": "still loading"}, "still loading", "[Cc]onne"),
        ({"served": "somebody-else"}, "asked for the models", "serves somebody-else, not "),
    ],
    ids=["it never answers", "it serves another model"],
)
def test_a_replica_that_does_not_become_ready_is_ended_after_the_timeout(
    habits: dict[str, Any], last_words: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, "tau2_fleet.fleet.supervisor")

    async def scenario() -> None:
        fleet = fleet_of(tmp_path, fake_pool(tmp_path, 1, **habits), ready_timeout_s=300.5)
        log = fleet.logs / "agent-0.log"
        starting = asyncio.create_task(fleet.start())
        await until(lambda: log.exists() and last_words in log.read_text().splitlines())
        clock.forward(300.5)
        with pytest.raises(UserError, match=rf"was not ready within server.ready_timeout_s=300.5 \(.*{why}") as caught:
            await starting
        assert last_words in str(caught.value)

    run(scenario)


def test_markup_in_the_text_stops_the_run_and_names_the_parser_flag(tmp_path: Path) -> None:
    async def scenario() -> None:
        text = "I will look. <tool_call>\n{...}"
        fleet = fleet_of(tmp_path, fake_pool(tmp_path, 1, calls=False, content=text))
        with pytest.raises(UserError, match=r"came back as text \(<tool_call \.\.\., as hermes .*tool_call_parser"):
            await fleet.start()
        assert all(status.pid is None for status in fleet.status())

    run(scenario)


def test_plain_text_at_the_preflight_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running(fleet_of(tmp_path, fake_pool(tmp_path, 1, calls=False))):
            assert "in plain text" in caplog.text

    run(scenario)


def test_secrets_of_the_runner_do_not_reach_the_servers_and_the_key_is_on_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-servers")
    monkeypatch.setenv("VLLM_API_KEY", "the-users-own")
    monkeypatch.setenv("HF_TOKEN", "hf-not-for-a-model-that-is-here")
    monkeypatch.setenv("NCCL_DEBUG", "WARN")

    async def scenario() -> None:
        async with running(fleet_of(tmp_path)) as fleet:
            [first, second] = await all_ready(fleet, 2)
            assert first.api_key == second.api_key
            assert first.api_key not in (None, "the-users-own")
            for status in fleet.status():
                server = psutil.Process(status.pid)
                environment = server.environ()
                assert not {"OPENAI_API_KEY", "HF_TOKEN"} & environment.keys()
                assert environment["NCCL_DEBUG"] == "WARN"
                assert environment["VLLM_API_KEY"] == first.api_key
                assert not any(str(first.api_key) in word for word in server.cmdline())
                assert os.getsid(server.pid) == server.pid
            scratch = {psutil.Process(status.pid).environ()["TMPDIR"] for status in fleet.status()}
            assert len(scratch) == 2
        assert not any(Path(path).exists() for path in scratch)
        assert str(first.api_key) not in "".join(log.read_text() for log in fleet.logs.iterdir())
        assert str(first.api_key) not in repr(first)

    run(scenario)


def test_metrics_are_sampled_while_running_and_once_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_fleet.fleet.fleet._LAST_SAMPLE_S", CEILING_S)
    monkeypatch.setattr("tau2_fleet.fleet.sampler._TIMEOUT_S", CEILING_S)

    async def scenario() -> None:
        with heard() as events:
            async with running(fleet_of(tmp_path, fake_pool(tmp_path, 1))) as fleet:
                await chat(fleet.endpoints()[0])
        samples = [event for event in events if isinstance(event, ReplicaSample)]
        assert samples[-1].replica == "agent/0"
        assert samples[-1].kv_use == 0.25
        assert samples[-1].prompt_tokens == 30, "the two of the preflight and ours"

    run(scenario)


def test_a_fleet_whose_last_sample_is_cancelled_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        sampled = asyncio.Event()

        async def endless(self: Fleet) -> None:
            sampled.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Fleet, "sample", endless)
        fleet = Fleet([], fake_settings(tmp_path), tmp_path)
        await fleet.start()
        stopping = asyncio.create_task(fleet.detach())
        await sampled.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert (fleet._http, fleet._supervisor) == (None, None)

    run(scenario)


def test_the_jobs_of_a_sweep_share_the_servers_while_they_want_the_same(tmp_path: Path) -> None:
    """Each job has an event loop of its own; a job that fails does not end the fleet for the next."""
    pools = [fake_pool(tmp_path)]
    settings = fake_settings(tmp_path)
    restarts: list[int] = []
    lease = FleetLease(QUICK)

    async def job(specs: list[PoolSpec], routing: str, fails: bool = False) -> list[tuple[int | None, int | None]]:
        fleet = await lease.fleet(specs, replace(settings, routing=routing), tmp_path)
        try:
            await all_ready(fleet, 2)
            endpoint = await fleet.router("agent").acquire("s")
            await chat(endpoint)
            assert type(fleet.router("agent").policy).__name__.lower() == routing
            restarts.append(fleet.report().restarts)
            if fails:
                raise RuntimeError
            return [(status.pid, status.port) for status in fleet.status()]
        finally:
            await fleet.detach()

    with lease:
        first = asyncio.run(job(pools, "sticky"))
        with pytest.raises(RuntimeError):
            asyncio.run(job(pools, "sticky", fails=True))
        assert asyncio.run(job(pools, "random")) == first
        lost = first[0][0]
        assert lost is not None
        os.kill(lost, signal.SIGKILL)  # between two jobs, while no one watches
        os.waitid(os.P_PID, lost, os.WEXITED | os.WNOWAIT)  # its last thread too, not its first alone
        third = asyncio.run(job(pools, "sticky"))
        assert third[0] != first[0]
        assert third[1] == first[1]
        assert asyncio.run(job(pools, "sticky")) == third
        assert restarts == [0, 0, 0, 1, 0], "each job counts its own"
        other = asyncio.run(job([replace(pools[0], extra_args="--max-model-len 100")], "sticky"))
        all_gone(pid for pid, _ in third if pid)
    all_gone(pid for pid, _ in other if pid)


def test_external_servers_are_used_and_left_running(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(fleet_of(tmp_path)) as ours:
            endpoints = await all_ready(ours, 2)
            spec = PoolSpec(
                "agent",
                External(),
                endpoints=tuple(endpoint.base_url for endpoint in endpoints),
                api_key=endpoints[0].api_key,
            )
            async with running(fleet_of(tmp_path / "none", spec)) as theirs:
                found = await all_ready(theirs, 2)
                assert found[0].model == endpoints[0].model
                assert theirs.context_limit("agent") == 4096
                await chat(found[1])
            assert len(ours.endpoints()) == 2
            await chat(endpoints[0])
            refused = fleet_of(tmp_path / "none", replace(spec, api_key="wrong"))
            with pytest.raises(UserError, match=r"refuses the key: set server\.api_key_env"):
                await refused.start()

    (tmp_path / "none").mkdir()
    run(scenario)


def test_an_external_server_that_goes_away_and_comes_back_is_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "none").mkdir()
        slow_to_return = replace(QUICK, backoff_s=2.0)
        async with running(
            Fleet([fake_pool(tmp_path)], fake_settings(tmp_path), tmp_path, watch=slow_to_return)
        ) as ours:
            endpoints = await all_ready(ours, 2)
            urls = tuple(endpoint.base_url for endpoint in endpoints)
            spec = PoolSpec("agent", External(), endpoints=urls, api_key=endpoints[0].api_key)
            async with running(fleet_of(tmp_path / "none", spec)) as theirs:
                await all_ready(theirs, 2)
                pid = ours.status()[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await until(lambda: len(theirs.endpoints()) == 1)
                await all_ready(ours, 2)
                await all_ready(theirs, 2)

    run(scenario)


def test_requests_to_an_external_server_that_hangs_are_given_up_after_its_patience(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "none").mkdir()
        async with running(fleet_of(tmp_path)) as ours:
            endpoints = await all_ready(ours, 2)
            urls = tuple(endpoint.base_url for endpoint in endpoints)
            spec = PoolSpec("agent", External(), endpoints=urls, api_key=endpoints[0].api_key)
            watch = replace(QUICK, external_patience_s=0.5)
            async with running(Fleet([spec], fake_settings(tmp_path), tmp_path / "none", watch=watch)) as theirs:
                hanging = (await all_ready(theirs, 2))[0]
                pid = next(status.pid for status in ours.status() if status.url == hanging.base_url)
                assert pid is not None
                hasten(watch, health_timeout_s=0.3)
                os.kill(pid, signal.SIGSTOP)

                async def request() -> None:
                    async with asyncio.timeout(None) as scope:
                        hanging.in_flight.add(scope)
                        await asyncio.sleep(CEILING_S)

                with pytest.raises(TimeoutError):
                    await request()

    run(scenario)


def test_an_external_server_that_is_not_there_is_an_error_within_its_patience(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        spec = PoolSpec("agent", External(), endpoints=("http://127.0.0.1:9",))
        with pytest.raises(UserError, match=r"pool agent: 0 of 1 .*http://127.0.0.1:9/v1/models: .*[Cc]onn"):
            await fleet_of(tmp_path, spec).start()

    run(scenario)
    assert [record.getMessage().endswith("waiting for it, 1 s at most") for record in caplog.records] == [True]
