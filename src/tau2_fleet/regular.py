"""Opens what a run left only where it is a file: a pipe in its place would be waited for, a device read, for ever.

Whoever reads a run directory, or goes on with its files, opens them here; standard library only.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 2**28
"""Bytes: no simulation comes near it, and a file with holes has lines of any length."""
PIPE_WAIT_S = 20
"""Seconds that a pipe may be silent, whose other end computes what it gives."""
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


def read_given(path: Path) -> bytes:
    """A file that somebody names, in one piece; or what comes out of a pipe, such as a shell's `<(command)`.

    Raises:
        OSError: it cannot be read, is neither, is larger than any that is read so, or nobody writes into the pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return _out_of_pipe(descriptor, path)
    finally:
        os.close(descriptor)
    return read_whole(path)


def _out_of_pipe(descriptor: int, path: Path) -> bytes:
    found = bytearray()
    looking = select.poll()
    looking.register(descriptor, select.POLLIN)
    while looking.poll(1000 * PIPE_WAIT_S):
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return bytes(found)
        found += piece
        if len(found) > LARGEST_WHOLE:
            raise _too_large(f"larger than {LARGEST_WHOLE >> 20} MB", path)
    raise OSError(errno.ETIMEDOUT, f"a pipe into which nobody has written for {PIPE_WAIT_S} s", str(path))


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
