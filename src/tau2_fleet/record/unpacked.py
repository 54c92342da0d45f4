"""Opens files that may be compressed as they are: gzip, bzip2 and xz, told by their first bytes and not by their name.

`results_file` and `json_stream` read other programs' results through it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EFBIG
from pathlib import Path
from typing import IO, Any

from tau2_fleet.regular import LARGEST_WHOLE, open_file, read_whole

_FORMS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes, and what opens such a file."""
PACKED_ENDS = (".gz", ".bz2", ".xz")


def is_packed(path: Path) -> bool:
    """Whether a file is compressed in a form that is read here.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    return _form(path) is not None


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A file to read, unpacked on the way.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: what is compressed is damaged or broken off.
    """
    form = _form(path)
    with open_file(path) as file:
        if form is None:
            yield file
            return
        try:
            with form(file) as unpacked:
                yield unpacked
        except EOFError:
            raise ValueError("the compressed file breaks off: a copy or download that was cut?") from None
        except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise ValueError(f"the compressed file is damaged: {error}") from error


def read_unpacked(path: Path) -> bytes:
    """A file in one piece, unpacked.

    Raises:
        OSError: it cannot be read, is no file, or is larger than any that is read so.
        ValueError: what is compressed is damaged or broken off.
    """
    if not is_packed(path):
        return read_whole(path)
    with open_unpacked(path) as file:
        found = file.read(LARGEST_WHOLE + 1)
    if len(found) > LARGEST_WHOLE:
        raise OSError(EFBIG, f"unpacked larger than {LARGEST_WHOLE >> 20} MB", str(path))
    return found


def _form(path: Path) -> Callable[..., Any] | None:
    with open_file(path) as file:
        begun = file.read(8)
    return next((opened for mark, opened in _FORMS.items() if begun.startswith(mark)), None)
