"""What the whole program tells those who use it: exit statuses, and the one exception that is shown as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path


class ExitStatus(IntEnum):
    """What a command tells the shell; the numbers mean the same for every command."""

    FINISHED = 0, "done; of a run: every simulation finished"
    FAILED = 1, "wrong use or configuration, could not start, could not write"
    REFUSED = 2, "refused: these inputs may not be put together"
    NEGATIVE = 3, "finished, and the answer is no: an incomplete run, an early end, a failed gate"
    PARTIAL = 4, "in part or undecided: some files could not be scored, a gate's interval straddles its margin"
    INTERRUPTED = 130, "ended by SIGINT, SIGTERM or SIGHUP"

    meaning: str
    """In half a line, for people."""

    def __new__(cls, number: int, meaning: str = "") -> ExitStatus:
        status = int.__new__(cls, number)
        status._value_ = number
        status.meaning = meaning
        return status

    @classmethod
    def worst(cls, statuses: Iterable[int]) -> ExitStatus:
        """What a whole of several parts ends with; a number that means nothing here counts as a failure."""
        known = [cls(status) if status in [*cls] else cls.FAILED for status in statuses]
        return max(known, key=_FROM_BEST_TO_WORST.index, default=cls.FINISHED)


_FROM_BEST_TO_WORST = (
    ExitStatus.FINISHED,
    ExitStatus.PARTIAL,
    ExitStatus.NEGATIVE,
    ExitStatus.REFUSED,
    ExitStatus.FAILED,
    ExitStatus.INTERRUPTED,
)


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do, in one or two lines."""


class CannotWrite(UserError):
    """A disk that is full or gone, or a place that is not ours."""


def exhausted(error: BaseException) -> str | None:
    """What to say of an error that only means that the machine gave no more; None: it means something else."""
    if isinstance(error, MemoryError):
        return "out of memory: this process may have no more of it (a limit of ulimit -v or of a container)"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "no thread could be started: this process may have no more threads or memory for them (ulimit -u, "
            "ulimit -v, or a container's limit of pids)"
        )
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`.

    Raises:
        CannotWrite: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
