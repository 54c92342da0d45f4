"""A burst of replies: a few are taken at a time, in turn, and timers go on between them."""

from __future__ import annotations

import asyncio
import selectors
import socket
from contextlib import ExitStack

from tau2_fleet.run.event_loop import FewAtOnce, run_in_loop


def test_none_of_many_that_stay_ready_is_passed_over() -> None:
    with ExitStack() as stack, FewAtOnce(2) as selector:
        numbers = []
        for _ in range(5):
            near, far = socket.socketpair()
            stack.callback(near.close)
            stack.callback(far.close)
            far.send(b"never read: it stays ready")
            numbers.append(selector.register(near, selectors.EVENT_READ).fd)
        taken = [{key.fd for key, _ in selector.select(0)} for _ in range(30)]
        assert {len(turn) for turn in taken} == {2}
        assert all(set().union(*taken[first : first + 4]) == set(numbers) for first in range(27))
        assert {events for _, events in selector.select(0)} == {selectors.EVENT_READ}


def test_a_timer_is_not_held_up_by_a_burst() -> None:
    burst, at_once = 100, 32

    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        read: list[int] = []
        due: list[int] = []
        pairs = [socket.socketpair() for _ in range(burst)]
        for number, (near, far) in enumerate(pairs):
            far.send(b"x")

            def heard(number: int = number, near: socket.socket = near) -> None:
                loop.remove_reader(near)
                if not read:
                    loop.call_soon(lambda: due.append(len(read)))
                read.append(number)

            loop.add_reader(near, heard)
        while len(read) < burst:
            await asyncio.sleep(0)
        for near, far in pairs:
            near.close()
            far.close()
        assert sorted(read) == list(range(burst))
        return due

    assert run_in_loop(scenario()) == [at_once]
