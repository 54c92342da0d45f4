"""One writer for a run directory: `jobs.py` reserves it before anything is written there, the store takes it over."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tau2_fleet.errors import UserError

LOCK_FILE = ".lock"

_reserved: dict[Path, BinaryIO] = {}


@contextmanager
def reserved(directory: Path) -> Iterator[None]:
    """Nobody else writes the directory, which is made if need be, while the block lasts or its store is open.

    Raises:
        UserError: another run writes here, or the directory cannot be written.
    """
    _reserved[directory] = _locked(directory)
    try:
        yield
    finally:
        unused = _reserved.pop(directory, None)
        if unused is not None:
            unused.close()


def take(directory: Path) -> BinaryIO:
    """The lock, from `reserved` or anew; closing it gives the directory free.

    Raises:
        UserError: another run writes here, or the directory cannot be written.
    """
    return _reserved.pop(directory, None) or _locked(directory)


def cannot_write(directory: Path, error: OSError) -> UserError:
    """What to say of a directory that does not take files."""
    return UserError(f"cannot write the run directory {directory}: {error.strerror or error}")


def _locked(directory: Path) -> BinaryIO:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK_FILE).open("ab")
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
