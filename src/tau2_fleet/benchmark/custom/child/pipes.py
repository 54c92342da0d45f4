"""The pipes to the runner: nobody else can write into them, and with the runner the process goes."""

from __future__ import annotations

import os
import select
import signal
from typing import BinaryIO

_GRACE_S = 2.0
"""After the runner's end: how long the process may take to notice by itself."""


def take() -> tuple[BinaryIO, BinaryIO]:
    """Where requests come from and answers go; whatever else reads or prints here is led elsewhere."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def end_with_runner(requests: BinaryIO) -> None:
    """From now on a process of its own watches the runner, because a tool can hold this one so that it sees nothing.

    It ends this process, and all that this one has started, when the runner's end of the pipe is closed.
    """
    here, there = os.pipe()
    if os.fork():
        os.close(here)
        return
    os.close(there)
    try:
        ends = select.poll()
        ends.register(requests.fileno(), 0)
        ends.register(here, 0)
        if requests.fileno() in dict(ends.poll()):
            left = select.poll()
            left.register(here, 0)
            if not left.poll(_GRACE_S * 1000):
                os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(0)
