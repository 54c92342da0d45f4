"""Signals as a state machine: the first lets work end, the second gives it up, and at the end they only hurry."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tau2_fleet.run.interrupts import Interrupts, InterruptState, ended_like_ctrl_c
from tests.waiting import CEILING_S


class Work:
    over = False

    def __init__(self) -> None:
        self.told: list[str] = []

    def stop(self) -> None:
        self.told.append("stop")

    def abort(self) -> None:
        self.told.append("abort")


def in_a_task(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), CEILING_S))


def test_the_first_signal_stops_the_work_and_every_later_one_gives_it_up() -> None:
    async def scene() -> None:
        interrupts, work = Interrupts(), Work()
        interrupts.put_in_charge(work)
        assert not interrupts.asked
        states = []
        for _ in range(3):
            interrupts.signal()
            states.append((interrupts.state, interrupts.given_up))
        assert work.told == ["stop", "abort", "abort"]
        aborting = (InterruptState.ABORTING, True)
        assert states == [(InterruptState.STOPPING, False), aborting, aborting]
        assert interrupts.asked

    in_a_task(scene)


def test_before_and_after_the_work_a_signal_cancels_the_task_which_may_go_on_to_close() -> None:
    async def scene() -> None:
        for begun in (False, True):
            interrupts, work = Interrupts(), Work()
            if begun:
                work.over = True
                interrupts.put_in_charge(work)
            interrupts.signal()
            with pytest.raises(asyncio.CancelledError) as caught:
                await asyncio.sleep(CEILING_S)
            assert interrupts.absorb(caught.value)
            assert (work.told, interrupts.given_up, interrupts.state) == ([], False, InterruptState.ABORTING)
            await asyncio.sleep(0)  # no cancellation is left over

    in_a_task(scene)


def test_while_closing_signals_only_hurry() -> None:
    async def scene() -> None:
        interrupts, work, hurried = Interrupts(), Work(), []
        interrupts.put_in_charge(work)
        interrupts.begin_closing(lambda: hurried.append(True))
        interrupts.signal()
        interrupts.signal()
        assert (work.told, len(hurried), interrupts.state) == ([], 2, InterruptState.CLOSING)
        await asyncio.sleep(0)

    in_a_task(scene)


def test_a_cancellation_that_no_signal_asked_for_is_not_absorbed() -> None:
    async def scene() -> None:
        interrupts = Interrupts()
        assert not interrupts.absorb(asyncio.CancelledError())
        interrupts.asked = True
        assert not interrupts.absorb(ValueError())

    in_a_task(scene)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_ends_a_run_is_heard_and_given_back_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    async def scene() -> None:
        interrupts, work = Interrupts(), Work()
        interrupts.put_in_charge(work)
        with interrupts.listening():
            os.kill(os.getpid(), number)
            while not interrupts.asked:
                await asyncio.sleep(0)
        assert work.told == ["stop"]

    in_a_task(scene)
    assert signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt), ended_like_ctrl_c():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_hang_up_that_is_ignored_from_the_start_ends_nothing() -> None:
    code = (
        "import asyncio, os, signal\n"
        "from tau2_fleet.run.interrupts import Interrupts, ended_like_ctrl_c\n"
        "async def scene():\n"
        "    interrupts = Interrupts()\n"
        "    with interrupts.listening():\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        await asyncio.sleep(0.05)\n"
        "    print(interrupts.asked)\n"
        "with ended_like_ctrl_c():\n"
        "    asyncio.run(scene())\n"
    )
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=ignoring)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
