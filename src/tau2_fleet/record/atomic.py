"""Files that are either the old one or the whole new one, never half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tau2_fleet.errors import writing


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place only when the block ends well.

    A run directory has one writer, so the temporary name is always the same: what a killed run left is overwritten.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text, and the folder it is to stand in.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a small value as readable JSON.

    Raises:
        UserError: it cannot be written.
    """
    with replaced(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n")
