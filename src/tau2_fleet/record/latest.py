"""The records of a run that count, one after another, however many there are: exports and other readers of whole runs.

Of each simulation only its key and the place of its line are kept in memory. A first pass takes the keys from the
beginnings of lines; only simulations with several lines are parsed twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tau2_fleet.errors import UserError
from tau2_fleet.record.line import DamagedRecord, Record, SimulationKey, decode_line, read_line
from tau2_fleet.record.reading import RECORD_FILE, Damage, StoredLine, no_run, stored_line
from tau2_fleet.regular import lines_of, open_file
from tau2_fleet.telemetry.secrets import record_redactor

_TEXT = rb'"(?:[^"\\]|\\.)*"'
_BEGINNING = re.compile(rb'\{"id":%b,"domain":(%b),"task_id":(%b),"trial":(\d{1,15}),"seed":' % (_TEXT, _TEXT, _TEXT))
"""How every line begins that this program writes."""


class LinePlace(NamedTuple):
    """Where a line stands."""

    number: int
    """From 1."""
    offset: int
    length: int
    """Both in bytes."""


class LatestRecords:
    """The last readable record of each simulation of a run, in the order of their lines.

    Keys that the program knows are redacted, those too that it did not know when the record was written.
    """

    def __init__(self, directory: Path) -> None:
        """Look where the records are.

        Raises:
            UserError: the directory holds no record that can be read.
        """
        self.path = directory / RECORD_FILE
        self.damage = Damage()
        """The lines that hold no record, as far as they were read."""
        self._places: dict[SimulationKey, LinePlace] = {}
        self._named: set[int] = set()
        """Numbers of the lines in `damage`."""
        if not self.path.is_file():
            raise no_run(directory)
        try:
            self._look()
        except OSError as error:
            raise self._unreadable(error) from error

    def __len__(self) -> int:
        return len(self._places)

    @property
    def keys(self) -> list[SimulationKey]:
        """The simulations in the order of their lines; damage is known only once a line is read."""
        return list(self._places)

    def __iter__(self) -> Iterator[Record]:
        return self.read()

    def read(self, wanted: Callable[[SimulationKey], bool] | None = None) -> Iterator[Record]:
        """The records of these simulations (None: of all), one at a time in memory."""
        try:
            with open_file(self.path) as file:
                for key, place in self._places.items():
                    if (wanted is None or wanted(key)) and (record := self._read(file, place)) is not None:
                        yield record
        except OSError as error:
            raise self._unreadable(error) from error

    def find(self, key: SimulationKey) -> Record:
        """The record of one simulation that `read` has given before.

        Raises:
            UserError: it is not there any longer.
        """
        try:
            with open_file(self.path) as file:
                record = self._read(file, self._places[key])
        except OSError as error:
            raise self._unreadable(error) from error
        if record is None:
            raise UserError(f"{self.path} was changed while it was read")
        return record

    def _read(self, file: BinaryIO, place: LinePlace) -> Record | None:
        file.seek(place.offset)
        line = stored_line(place.number, place.offset, record_redactor.redact_bytes(file.read(place.length)))
        if line is None:
            return None
        if line.record is None and line.number not in self._named:
            self._note(line)
        return line.record

    def _look(self) -> None:
        places: dict[SimulationKey, list[LinePlace]] = {}
        offset = 0
        with open_file(self.path) as file:
            for number, line in enumerate(lines_of(file), 1):
                place = LinePlace(number, offset, len(line))
                offset += len(line)
                if (key := self._key(place, line)) is not None:
                    places.setdefault(key, []).append(place)
            found = {key: self._last_readable(file, lines) for key, lines in places.items()}
        kept = [(place, key) for key, place in found.items() if place is not None]
        self._places = {key: place for place, key in sorted(kept, key=lambda one: one[0].offset)}

    def _key(self, place: LinePlace, line: bytes) -> SimulationKey | None:
        begins = _BEGINNING.match(line)
        if begins is not None and line.endswith(b"\n"):
            try:
                return SimulationKey(decode_line(begins[1]), decode_line(begins[2]), int(begins[3]))
            except ValueError:
                pass
        stored = stored_line(place.number, place.offset, line)
        if stored is None:
            return None
        if stored.record is None:
            self._note(stored)
            return None
        return stored.record.key

    def _last_readable(self, file: BinaryIO, lines: list[LinePlace]) -> LinePlace | None:
        """The last of a simulation's lines that holds a record; of a single one that is found out when it is read."""
        if len(lines) == 1:
            return lines[0]
        for place in reversed(lines):
            file.seek(place.offset)
            line = file.read(place.length)
            try:
                read_line(line)
            except DamagedRecord as error:
                if line.endswith(b"\n"):
                    self._note(StoredLine(place.number, place.offset, place.length, None, str(error)))
            else:
                return place
        return None

    def _note(self, line: StoredLine) -> None:
        self._named.add(line.number)
        self.damage.add(line)

    def _unreadable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: cannot be read: {error.strerror or error}")
