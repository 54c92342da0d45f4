"""The replica table: where sessions go, how evenly, how fast."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import count

import pytest

from tau2_fleet.extensions import names
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import FatalModelError

POLICIES = names("tau2_fleet.fleet.routing")


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"agent/{number}", f"http://127.0.0.1:{1900 + number}", "model")


def router(replicas: int, policy: str = "sticky") -> PoolRouter:
    seed = {"seed": 1} if policy == "random" else {}
    made = PoolRouter("agent", routing_policy({"_target_": policy, **seed}))
    for number in range(replicas):
        made.add(endpoint(number))
    return made


async def ask(made: PoolRouter, session: str, avoid: Endpoint | None = None) -> Endpoint:
    chosen = await made.acquire(session, avoid)
    made.release(chosen, session)
    return chosen


def test_a_session_stays_with_its_replica() -> None:
    async def scenario() -> None:
        made = router(4)
        homes = {f"s{number}": await ask(made, f"s{number}") for number in range(40)}
        for _ in range(5):
            for session, home in homes.items():
                assert await ask(made, session) is home
        assert Counter(home.name for home in homes.values()) == {f"agent/{number}": 10 for number in range(4)}

    asyncio.run(scenario())


def test_a_new_session_goes_where_the_fewest_are() -> None:
    async def scenario() -> None:
        made = router(3)
        homes = {f"s{number}": await ask(made, f"s{number}") for number in range(9)}
        emptied = homes["s0"]
        for session, home in homes.items():
            if home is emptied:
                made.end_session(session)
        assert await ask(made, "new") is emptied

    asyncio.run(scenario())


def test_the_sessions_of_a_replica_that_went_spread_over_the_others() -> None:
    async def scenario() -> None:
        made = router(3)
        homes = {f"s{number}": await ask(made, f"s{number}") for number in range(30)}
        lost = homes["s0"]
        made.remove(lost)
        after = {session: await ask(made, session) for session in homes}
        assert lost not in after.values()
        assert all(after[session] is home for session, home in homes.items() if home is not lost)
        assert sorted(load.sessions for load in made.loads()) == [15, 15]
        assert made.moved == 10

    asyncio.run(scenario())


def test_replicas_that_become_ready_late_get_their_share_of_the_running_sessions() -> None:
    async def scenario() -> None:
        made = router(1)
        sessions = [f"s{number}" for number in range(80)]
        for session in sessions:
            await ask(made, session)
        for number in range(1, 4):
            made.add(endpoint(number))
        for session in sessions:
            await ask(made, session)
        loads = [load.sessions for load in made.loads()]
        assert sum(loads) == 80
        assert max(loads) <= 1.5 * min(loads) + 4
        homes = {session: await ask(made, session) for session in sessions}
        assert all([await ask(made, session) is home for session, home in homes.items()])

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_failed_request_is_tried_on_another_replica_where_there_is_one(policy: str) -> None:
    async def scenario() -> None:
        made = router(3, policy)
        for _ in range(50):
            failed = await ask(made, "s")
            assert await ask(made, "s", avoid=failed) is not failed
        alone = router(1, policy)
        only = await ask(alone, "s")
        assert await ask(alone, "s", avoid=only) is only

    asyncio.run(scenario())


def test_least_loaded_counts_requests_in_flight() -> None:
    async def scenario() -> None:
        made = router(3, "least_loaded")
        held = [await made.acquire("same") for _ in range(9)]
        assert {load.in_flight for load in made.loads()} == {3}
        made.release(held[4], "same")
        assert await made.acquire("same") is held[4]

    asyncio.run(scenario())


def test_requests_wait_while_no_replica_is_ready() -> None:
    async def scenario() -> None:
        made = router(0)
        waiting = [asyncio.create_task(made.acquire(f"s{number}")) for number in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        arrived = endpoint(0)
        made.add(arrived)
        assert await asyncio.gather(*waiting) == [arrived] * 5

    asyncio.run(scenario())


def test_requests_fail_when_no_replica_will_come_back() -> None:
    async def scenario() -> None:
        made = router(1)
        only = await ask(made, "s")
        made.remove(only)
        waiting = asyncio.create_task(made.acquire("s"))
        await asyncio.sleep(0)
        made.close("server agent/0 ended with status 1")
        with pytest.raises(FatalModelError, match="no server of pool agent is left: server agent/0 ended"):
            await waiting
        made.reopen()
        made.add(endpoint(0))
        await ask(made, "s")

    asyncio.run(scenario())


def test_a_late_release_of_a_replica_that_has_come_back_does_not_count_against_the_new_one() -> None:
    async def scenario() -> None:
        made = router(1, "least_loaded")
        old = await made.acquire("s")
        made.remove(old)
        new = endpoint(0)
        made.add(new)
        made.release(old, "s", failed=True)
        assert await made.acquire("s") is new
        assert made.loads()[0].in_flight == 1

    asyncio.run(scenario())


def test_whoever_watches_hears_of_failed_requests() -> None:
    async def scenario() -> None:
        heard: list[str] = []
        made = PoolRouter("agent", routing_policy("sticky"), lambda failed: heard.append(failed.name))
        made.add(endpoint(0))
        made.release(await made.acquire("s"), "s")
        made.release(await made.acquire("s"), "s", failed=True)
        assert heard == ["agent/0"]

    asyncio.run(scenario())


def test_sticky_sessions_stay_balanced_while_replicas_and_sessions_come_and_go() -> None:
    async def scenario() -> list[int]:
        chance = random.Random(7)
        made = router(100, "sticky")
        names, numbers = count(), count(100)
        sessions = [f"run/retail/{next(names)}/0/agent" for _ in range(5_000)]
        for session in sessions:
            await ask(made, session)
        for _ in range(15):
            for _ in range(5):
                loads = made.loads()
                made.remove(loads[chance.randrange(len(loads))].endpoint)
                made.add(endpoint(next(numbers)))
            for position in [chance.randrange(len(sessions)) for _ in range(400)]:
                await ask(made, sessions[position])
                made.end_session(sessions[position])
                sessions[position] = f"run/retail/{next(names)}/0/agent"
                await ask(made, sessions[position])
        for session in sessions:
            await ask(made, session)
        return [load.sessions for load in made.loads()]

    held = asyncio.run(scenario())
    assert (len(held), sum(held)) == (100, 5_000)
    assert 45 <= min(held) <= max(held) <= 55
