"""One writer for a run directory: whoever is to write there holds its lock, and hands it to the store."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tau2_fleet.errors import UserError
from tau2_fleet.regular import open_file, open_to_append

LOCK_FILE = ".lock"


class DirectoryLock:
    """Nobody else writes the directory, which is made if need be, until `close`; a context manager."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another run writes here, or the directory cannot be written.
        """
        self._file: BinaryIO = _locked(directory)
        self._directory = directory

    def leave_no_trace(self) -> None:
        """Take the lock's file away again where the directory holds nothing else."""
        if [path.name for path in self._directory.iterdir()] == [LOCK_FILE]:
            (self._directory / LOCK_FILE).unlink()

    def close(self) -> None:
        """Let others write the directory."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Whether a process, on whatever machine, holds the lock of this file; False where that cannot be told."""
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def cannot_write(directory: Path, error: OSError) -> UserError:
    """What to say of a directory that does not take files."""
    return UserError(f"cannot write the run directory {directory}: {error.strerror or error}")


def _locked(directory: Path) -> BinaryIO:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open_to_append(directory / LOCK_FILE)
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"{directory} is being written by another run; wait for it, or choose another one") from error
    except OSError as error:
        file.close()
        raise cannot_write(directory, error) from error
    return file
