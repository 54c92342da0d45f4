"""Notices that a launcher waits for jobs that are gone: submitit does so for ever on a SLURM that keeps no accounts.

`launchers.py` opens a watch around each launch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LOOK_S = 2.0
PATIENCE_S = 20.0
"""How long a launcher may go on waiting once no job is left: it may be about to return, SLURM to queue one again."""
_SQUEUE_S = 20.0
_SIGNAL = signal.SIGALRM


class JobsLostError(Exception):
    """The launcher waits for jobs that are gone."""


@contextmanager
def losses_watched(anything_left: Callable[[], bool]) -> Iterator[None]:
    """While it lasts, raise JobsLostError in the main thread once nothing has been left for `PATIENCE_S`.

    Args:
        anything_left: whether some job may still come to its end by itself; called in a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.wait(LOOK_S):
            if anything_left():
                last = time.monotonic()
            elif time.monotonic() - last > PATIENCE_S and not over.is_set():
                signal.pthread_kill(main, _SIGNAL)
                return

    main = threading.get_ident()
    before = signal.signal(_SIGNAL, _raise)
    watcher = threading.Thread(target=watch, name="lost jobs", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(_SIGNAL, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise JobsLostError("the launcher waits for jobs whose processes are gone")


def slurm_job() -> str | None:
    """The job of SLURM that this process belongs to."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_queued(slurm_id: str) -> bool:
    """Whether SLURM still has the job, running or to be run (again); also where it cannot be asked just now."""
    command = ["squeue", "--noheader", "--jobs", slurm_id, "--format", "%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SQUEUE_S)
    except FileNotFoundError:
        return False
    except (OSError, subprocess.SubprocessError):
        return True
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return any(state.strip() not in ("", "COMPLETED", "FAILED", "CANCELLED") for state in done.stdout.splitlines())
