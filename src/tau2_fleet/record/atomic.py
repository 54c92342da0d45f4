"""Files that are either the old one or the whole new one, never half of it, and hold no key.

All of a run's derived files are written here.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tau2_fleet.errors import writing
from tau2_fleet.telemetry.secrets import Redactor, record_redactor, redactor


class _Redacted(io.BufferedWriter):
    """A file of which every write is freed of keys by itself: no value is written in two parts."""

    def __init__(self, path: Path, secrets: Redactor) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self._secrets = secrets

    def write(self, data: Any, /) -> int:
        super().write(self._secrets.redact_bytes(bytes(data)))
        return memoryview(data).nbytes


@contextmanager
def replaced(path: Path, secrets: Redactor = record_redactor) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place only when the block ends well; keys are kept out of it.

    A run directory has one writer, so the temporary name is always the same: what a killed run left is overwritten.

    Args:
        secrets: what may not be in it; files that quote conversations hold what the record holds.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        _refuse_special(path)
        try:
            with _Redacted(temporary, secrets) as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_replaced(path: Path) -> Iterator[Path]:
    """A folder to fill that takes `path`'s place only when the block ends well; what stood there goes then.

    Raises:
        UserError: it cannot be written.
    """
    temporary, former = (path.with_name(f".{path.name}.{ending}") for ending in ("tmp", "old"))
    with writing(path):
        _refuse_special(path)
        try:
            for left in (temporary, former):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rename(former)
            try:
                temporary.rename(path)
            except OSError:
                if former.exists():
                    former.rename(path)
                raise
            shutil.rmtree(former, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_special(path: Path) -> None:
    """Raises OSError for a device, a pipe, a socket, and what stands among devices: a file in its place does harm."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or os.path.realpath(path.parent) == "/dev":
        raise OSError(errno.EINVAL, "it is no file but a device", str(path))
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is no file but a pipe or a socket", str(path))


def write_text(path: Path, text: str) -> None:
    """Write a small text, and the folder it is to stand in.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path, redactor) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a small value as readable JSON.

    Raises:
        UserError: it cannot be written.
    """
    with replaced(path, redactor) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n")
