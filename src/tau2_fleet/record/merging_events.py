"""Events and logs of several runs put into one file each, by time, and their servers' logs beside one another.

`merge` asks. One line a run is in memory.
"""

from __future__ import annotations

import heapq
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.reading import lines_in
from tau2_fleet.telemetry.decoding import EventDecoder
from tau2_fleet.telemetry.secrets import redactor
from tau2_fleet.telemetry.trace import TraceWriter

PROFILE_FILE = "profile.jsonl"
LOG_FILE = "run.log"
SERVERS_FOLDER = "servers"
_TRACED_AT_ONCE = 5_000
_STAMP = re.compile(rb"\[[A-Z_]+\] (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) ")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventsPart:
    """One of the runs."""

    directory: Path
    fleet: str = ""
    """What is written behind the names of its replicas, where other runs have others of the same name."""


def merge_profiles(parts: Sequence[EventsPart], target: Path) -> None:
    """Write `profile.jsonl` and `trace.json` of all; the time in which none of them ran is no part of the whole.

    Raises:
        UserError: they cannot be written.
    """
    streams = [_rows(number, part) for number, part in enumerate(parts)]
    decoder, waiting = EventDecoder(), []
    marks = _Marks()
    with closing(TraceWriter(target / "trace.json")) as trace, replaced(target / PROFILE_FILE, redactor) as out:
        for _, number, row in heapq.merge(*streams, key=lambda entry: entry[:2]):
            if row["type"] == "run" and not marks.shown(number, row.get("mark")):
                continue
            out.write(orjson.dumps(row) + b"\n")
            event = decoder.decode(row)
            if event is not None:
                waiting.append(event)
            if len(waiting) >= _TRACED_AT_ONCE:
                trace.write(waiting)
                trace.flush()
                waiting.clear()
        trace.write(waiting)


def _rows(number: int, part: EventsPart) -> Iterator[tuple[float, int, Row]]:
    """The events of one run with their times; what a kill has torn is left out."""
    path = part.directory / PROFILE_FILE
    time_s = 0.0
    for line in lines_in(path):
        try:
            row = orjson.loads(line)
            time_s = max(time_s, float(row["time"]))
            row["type"]
        except (ValueError, KeyError, TypeError):
            continue
        if part.fleet and "replica" in row:
            row["replica"] = f"{row['replica']}@{part.fleet}"
        yield time_s, number, row


class _Marks:
    """Which marks of overlapping runs are those of the whole: the first start, the end that leaves none running."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def shown(self, number: int, mark: object) -> bool:
        """Whether this mark of this run is one."""
        if mark == "start":
            first = not self._running - {number}
            self._running.add(number)
            return first
        self._running.discard(number)
        return not self._running


def merge_logs(directories: Sequence[Path], target: Path) -> None:
    """Write the lines of all logs by time; lines without one stay behind the one that they follow.

    Raises:
        UserError: it cannot be written.
    """
    streams = [_entries(number, directory) for number, directory in enumerate(directories)]
    with replaced(target / LOG_FILE, redactor) as out:
        for _, _, entry in heapq.merge(*streams, key=lambda part: part[:2]):
            out.write(entry)


def keep_server_logs(directories: Mapping[str, Path], target: Path) -> None:
    """Have the servers' logs of each run in `servers/NAME/` too: as hard links, where there can be none as copies.

    Raises:
        OSError: they cannot be written.
    """
    for name, directory in directories.items():
        servers = directory / SERVERS_FOLDER
        for log in sorted(servers.rglob("*.log")):
            if log.is_symlink() or not os.access(log, os.R_OK):
                continue
            kept = target / SERVERS_FOLDER / name.strip("/").replace("/", "-") / log.relative_to(servers)
            kept.parent.mkdir(parents=True, exist_ok=True)
            try:
                kept.hardlink_to(log)
            except OSError:  # another file system, or one without links
                shutil.copyfile(log, kept)


def _entries(number: int, directory: Path) -> Iterator[tuple[bytes, int, bytes]]:
    """The entries of a log and of what was moved aside of it, each with its time."""
    stamp, entry = b"", b""
    older = sorted(directory.glob(f"{LOG_FILE}.[0-9]"), reverse=True)
    for path in [*older, directory / LOG_FILE]:
        for line in lines_in(path):
            whole = line.rstrip(b"\n") + b"\n"
            found = _STAMP.match(whole)
            if found is None:
                entry += whole
                continue
            if entry:
                yield stamp, number, entry
            stamp, entry = max(stamp, found[1]), whole
    if entry:
        yield stamp, number, entry
