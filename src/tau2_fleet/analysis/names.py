"""Short names for runs that are shown together; the tables of `analyze` and the report use the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct_names(directories: Sequence[Path]) -> list[str]:
    """The last part of each path, with a number behind it where that is taken."""
    names: list[str] = []
    for directory in directories:
        name = directory.resolve().name
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names
