"""Several records put into one file, their lines in the order in which the simulations ended; `merge` asks.

Of each line only its place is kept in memory, so records of any size can be joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import SimulationKey, decode_line
from tau2_fleet.record.reading import PROMPT_FILE, RECORD_FILE, Damage, lines_in, stored_lines
from tau2_fleet.regular import open_file

_OPEN_FILES = 64
"""Record files that are open at once."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line that holds a record, and what decides where it goes."""

    ended: str
    """Never before that of the line before it in its file: the last line of a simulation must stay the last."""
    offset: int
    length: int


@dataclass(slots=True)
class RecordIndex:
    """What is kept of one record file."""

    directory: Path
    keys: set[SimulationKey] = field(default_factory=set)
    models: dict[str, set[str]] = field(default_factory=dict)
    """Role to the models that its calls went to."""
    damage: Damage = field(default_factory=Damage)
    first_started: str = ""
    last_ended: str = ""
    lines: list[_Line] = field(default_factory=list)


def read_index(directory: Path) -> RecordIndex:
    """Look through the record of a run once.

    Raises:
        UserError: it cannot be read.
    """
    index = RecordIndex(directory)
    for line in stored_lines(directory / RECORD_FILE):
        record = line.record
        if record is None:
            index.damage.add(line)
            continue
        index.keys.add(record.key)
        for call in record.calls:
            index.models.setdefault(str(call.get("role")), set()).add(str(call.get("model")))
        index.last_ended = max(index.last_ended, record.ended)
        index.first_started = min(index.first_started or record.started, record.started)
        index.lines.append(_Line(index.last_ended, line.offset, line.length))
    return index


def overlap(indexes: Sequence[RecordIndex]) -> tuple[SimulationKey, Path, Path] | None:
    """A simulation that two of the records have, and where; None: each is in one alone."""
    seen: dict[SimulationKey, Path] = {}
    for index in indexes:
        for key in sorted(index.keys):
            if key in seen:
                return key, seen[key], index.directory
            seen[key] = index.directory
    return None


def merge_records(indexes: Sequence[RecordIndex], target: Path) -> None:
    """Write the lines of all records as one record, byte for byte; torn and damaged ones are left out.

    Raises:
        UserError: it cannot be written.
    """
    places = sorted(
        (line.ended, number, position)
        for number, index in enumerate(indexes)
        for position, line in enumerate(index.lines)
    )
    files: dict[int, BinaryIO] = {}
    try:
        with replaced(target / RECORD_FILE) as out:
            for _, number, position in places:
                if number not in files and len(files) >= _OPEN_FILES:
                    _close(files)
                if number not in files:
                    files[number] = open_file(indexes[number].directory / RECORD_FILE)
                line = indexes[number].lines[position]
                files[number].seek(line.offset)
                out.write(files[number].read(line.length).rstrip(b"\n") + b"\n")
    finally:
        _close(files)


def _close(files: dict[int, BinaryIO]) -> None:
    for file in files.values():
        file.close()
    files.clear()


def merge_prompts(directories: Sequence[Path], target: Path) -> None:
    """Write every prompt of these runs once.

    Raises:
        UserError: it cannot be written.
    """
    written: set[str] = set()
    with replaced(target / PROMPT_FILE) as out:
        for path in (directory / PROMPT_FILE for directory in directories):
            for line in lines_in(path):
                try:
                    digest = str(decode_line(line)["digest"])
                except (ValueError, KeyError, TypeError):
                    continue  # torn by a kill: its simulation was never stored
                if digest not in written:
                    written.add(digest)
                    out.write(line.rstrip(b"\n") + b"\n")


def different_models(indexes: Sequence[RecordIndex]) -> tuple[str, Mapping[Path, str]] | None:
    """A role that was played by other models in one record than in another; the role, and the models by directory."""
    for role in sorted({role for index in indexes for role in index.models}):
        named = {index.directory: " and ".join(sorted(index.models[role])) for index in indexes if role in index.models}
        if len(set(named.values())) > 1:
            return role, named
    return None
