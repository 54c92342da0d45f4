"""Opens what a run left only where it is a file: a pipe in its place would be waited for, a device read, for ever.

Whoever reads a run directory, or goes on with its files, opens them here; standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 2**28
"""Bytes: no simulation comes near it, and a file with holes has lines of any length."""
LARGEST_WHOLE = 2**29
"""Bytes of a file that is read in one piece."""


def only_files(path: str, flags: int) -> int:
    """What `open` takes as `opener`.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            raise _no_file(path) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    if is_folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise _no_file(path)


def open_file(path: Path, buffering: int = -1) -> BinaryIO:
    """A file to read.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    return open(path, "rb", buffering, opener=only_files)


def open_to_append(path: Path) -> BinaryIO:
    """A file to go on with, without a buffer.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    return open(path, "ab", 0, opener=only_files)


def read_whole(path: Path) -> bytes:
    """A file in one piece.

    Raises:
        OSError: it cannot be read, is no file, or is larger than any that is read so.
    """
    with open_file(path) as file:
        found = file.read(LARGEST_WHOLE + 1)
    if len(found) > LARGEST_WHOLE:
        raise _too_large(f"larger than {LARGEST_WHOLE >> 20} MB", path)
    return found


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of an open file, each with its break.

    Raises:
        OSError: it cannot be read, or a line is longer than any.
    """
    for line in iter(partial(file.readline, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE:
            raise _too_large(f"it has a line of more than {LONGEST_LINE >> 20} MB", file.name)
        yield line


def _no_file(path: object) -> OSError:
    return OSError(errno.EINVAL, "no file but a pipe, socket or device", str(path))


def _too_large(why: str, path: object) -> OSError:
    return OSError(errno.EFBIG, why, str(path))
