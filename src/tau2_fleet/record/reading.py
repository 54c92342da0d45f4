"""Reads `simulations.jsonl` line by line, and the small JSON files of a run: the one place that decides what they hold.

The store, the tools of `analysis/` and whoever else wants records of a run come here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tau2_fleet.errors import UserError
from tau2_fleet.record.line import DamagedRecord, Record, read_line
from tau2_fleet.regular import lines_of, open_file, read_whole

RECORD_FILE = "simulations.jsonl"
SUMMARY_FILE = "summary.json"
PROMPT_FILE = "prompts.jsonl"
_NAMED = 3
_DEEPEST = 100
"""Levels of a configuration."""
_AT_ONCE = 2**20
"""Bytes to read in one go: lines of tens of thousands are the rule."""


def no_run(directory: Path, file: str = RECORD_FILE) -> UserError:
    """What to say of a path that was named as a run's directory, and lacks the file that makes it one."""
    if directory.is_dir():
        return UserError(f"{directory} is no run directory: it has no {file}")
    return UserError(f"{directory} is no run directory: it is {'a file' if directory.exists() else 'not there'}")


class StoredLine(NamedTuple):
    """One line of a record file, and where it stands."""

    number: int
    """From 1."""
    offset: int
    length: int
    """In bytes, the line break included."""
    record: Record | None
    damage: str | None = None
    """Why there is no record."""
    ended: bool = True
    """False for a last line without a line break."""


@dataclass(slots=True)
class Damage:
    """What was wrong with the lines of a file."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """The first few, for people."""

    def add(self, line: StoredLine) -> None:
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(f"line {line.number}: {line.damage}")

    def __str__(self) -> str:
        more = f" and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
        return f"{self.count} damaged line{'s' if self.count > 1 else ''} ({'; '.join(self.named)}{more})"


def lines_in(path: Path) -> Iterator[bytes]:
    """The lines of a file that a run may have left.

    Raises:
        UserError: it is there, and cannot be read.
    """
    try:
        with open_file(path, _AT_ONCE) as file:
            yield from lines_of(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, from 1, offset in bytes, and text of each line of a record file, one at a time in memory.

    Raises:
        UserError: the file cannot be read.
    """
    offset = 0
    try:
        with open_file(path, _AT_ONCE) as file:
            for number, line in enumerate(lines_of(file), 1):
                yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def stored_lines(path: Path) -> Iterator[StoredLine]:
    """The lines of a record file, one at a time in memory.

    Empty ones are passed over, and so is a torn last line; a last one that is whole counts, with or without its break.

    Raises:
        UserError: the file cannot be read.
    """
    for number, offset, line in numbered_lines(path):
        if (stored := stored_line(number, offset, line)) is not None:
            yield stored


def stored_line(number: int, offset: int, line: bytes, *, deep: bool = True) -> StoredLine | None:
    """What a line of a record file holds; None for an empty one, and for a torn last one.

    Args:
        deep: as in `read_line`.
    """
    ended = line.endswith(b"\n")
    if line.isspace():
        return None
    try:
        return StoredLine(number, offset, len(line), read_line(line, deep=deep), ended=ended)
    except DamagedRecord as error:
        return StoredLine(number, offset, len(line), None, str(error)) if ended else None


def read_config(directory: Path) -> dict[str, Any]:
    """The composed configuration of a run; empty where there is none that can be read."""
    import yaml

    try:
        found = yaml.load(saved_yaml(directory / ".hydra" / "config.yaml"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def saved_yaml(path: Path) -> str:
    """The text of a file of `.hydra/`, in which Hydra writes no aliases: a few lines of them could unfold to gigabytes.

    Raises:
        OSError, ValueError, YAMLError: it cannot be read.
    """
    import yaml

    text = read_whole(path).decode("utf-8")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which no run writes")
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {_DEEPEST} deep, which no run writes")
    return text


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file that a run may have left; empty where there is none that can be read."""
    try:
        found = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
