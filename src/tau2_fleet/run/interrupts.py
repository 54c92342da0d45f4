"""Ctrl-C and its kin: the first signal asks a run to end well, the second one ends it.

`experiment.py` and `serve.py` listen here while they run, `jobs.py` around them.

running ──signal──▶ stopping ──signal──▶ aborting
   └────────────┬───────┴───────────────────┘
                ▼ begin_closing
             closing        only files and trackers are left: a signal hurries them
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import Any, Protocol

from tau2_fleet.run.slurm_job import grace_within, kill_wait_s

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptState(StrEnum):
    """How far the signals have brought a run."""

    RUNNING = "running"
    """Nothing was asked for."""
    STOPPING = "stopping"
    """Nothing new is begun; what is in flight may end."""
    ABORTING = "aborting"
    """What is in flight is given up."""
    CLOSING = "closing"
    """The work is over, and what remains is written."""


class Stoppable(Protocol):
    """Work that can end in good order."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to stop."""
        ...

    def stop(self) -> None:
        """Begin nothing new, and let what is in flight end."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class Interrupts:
    """The signals of one run as a state machine; made in the task that they interrupt.

    Work without a `Stoppable` in charge cannot end in good order: its first signal cancels the task.
    """

    def __init__(self) -> None:
        self.state = InterruptState.RUNNING
        self.asked = False
        """Whether a signal came at any time."""
        self.given_up = False
        """Whether work in flight was given up for a signal."""
        self._work: Stoppable | None = None
        self._hurry: Callable[[], None] | None = None
        task = asyncio.current_task()
        assert task is not None
        self._task = task

    def put_in_charge(self, work: Stoppable) -> None:
        """From now on signals are this work's, until it is over."""
        self._work = work

    def begin_closing(self, hurry: Callable[[], None]) -> None:
        """From now on there is nothing to stop; a signal calls `hurry`."""
        self.state, self._hurry = InterruptState.CLOSING, hurry

    def signal(self) -> None:
        """One signal has come."""
        self.asked = True
        work = None if self._work is None or self._work.over else self._work
        if self.state is InterruptState.CLOSING:
            assert self._hurry is not None
            self._hurry()
        elif self.state is InterruptState.RUNNING and work is not None:
            self.state = InterruptState.STOPPING
            work.stop()
        else:
            self.state = InterruptState.ABORTING
            if work is None:
                self._task.cancel()
            else:
                self.given_up = True
                work.abort()

    def absorb(self, error: BaseException) -> bool:
        """Whether an error is the task's cancellation by a signal, after which the task goes on to close in order."""
        if not self.asked or not isinstance(error, asyncio.CancelledError):
            return False
        while self._task.cancelling():
            self._task.uncancel()
        return True

    def _continued(self, grace_s: float) -> None:
        """SIGCONT: SLURM sends it with SIGTERM to a job that it will kill in KillWait, and not where it only warns."""
        asyncio.get_running_loop().call_later(grace_s, self._time_is_up)

    def _time_is_up(self) -> None:
        if self.state is InterruptState.STOPPING:
            self.signal()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals while the block lasts; inside a running event loop of the main thread."""
        loop = asyncio.get_running_loop()
        before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _heard()}
        for number in before:
            loop.add_signal_handler(number, self.signal)
        if (kill_wait := kill_wait_s()) is not None:
            before[signal.SIGCONT] = signal.SIG_DFL
            loop.add_signal_handler(signal.SIGCONT, self._continued, grace_within(kill_wait))
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Around what has no event loop: every signal that ends a run raises KeyboardInterrupt here."""
    before = {number: signal.getsignal(number) for number in _heard()}
    for number in before:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _heard() -> list[signal.Signals]:
    """The signals that end a run; not a hang-up that is ignored from the start, as by nohup."""
    return [
        number for number in _SIGNALS if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
