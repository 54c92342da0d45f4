"""The one exception whose text is shown to people as it is, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do, in one or two lines."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`: a disk that is full or gone, or a place that is not ours, is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
