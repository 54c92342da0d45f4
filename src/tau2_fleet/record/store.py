"""The record of a run: `simulations.jsonl`, one appended line per finished simulation.

The lines are the truth; everything else a run leaves is derived from them. The store remembers
of each record only a few figures and where its line stands, so memory does not grow with messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.replies import ExpertUse, expert_use, flat_counts, was_transferred
from tau2_fleet.evaluation.spending import Spending, spending_of
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.invocation import typed
from tau2_fleet.record.line import Record, SimulationKey, decode_line, encode_line, read_line
from tau2_fleet.record.lock import DirectoryLock, cannot_write
from tau2_fleet.record.reading import PROMPT_FILE, RECORD_FILE, Damage, stored_lines
from tau2_fleet.regular import lines_of, open_file, open_to_append
from tau2_fleet.telemetry.secrets import record_redactor


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a stored record."""

    key: SimulationKey
    offset: int
    length: int
    """Place of its line in the file, in bytes."""
    termination_reason: str
    reward: float
    duration_s: float
    cost_usd: float
    """As far as it is known."""
    cost_unknown: bool
    input_tokens: int
    output_tokens: int
    user_turns_as_agent: int
    trimmed_calls: int
    spending: tuple[Spending, ...]
    replies: tuple[tuple[str, str, int], ...]
    """Role, condition and how often it was found."""
    error: str | None
    experts: tuple[tuple[str, ExpertUse], ...]
    transferred: bool

    @property
    def finished(self) -> bool:
        """False for the endings that a resumed run does again."""
        return self.termination_reason not in OURS


class Store:
    """An open run directory. Only one process can hold it: a second one gets a UserError."""

    def __init__(self, directory: Path, lock: DirectoryLock | None = None) -> None:
        """Open or create the record, dropping a torn last line.

        Args:
            lock: the directory's, where the caller holds it already; it stays the caller's to close.

        Raises:
            UserError: another run writes here, or the directory cannot be written.
        """
        self.directory = directory
        self.entries: dict[SimulationKey, Entry] = {}
        """The last record of each key."""
        self.cost_usd = 0.0
        """Of all lines: what was spent on simulations that were run again counts."""
        self.damage = Damage()
        """Lines that hold no record that can be read: their simulations are run again."""
        self._prompts: set[str] = set()
        self._lock = None if lock is not None else DirectoryLock(directory)
        try:
            self._records = open_to_append(directory / RECORD_FILE)
            self._prompt_file = open_to_append(directory / PROMPT_FILE)
        except OSError as error:
            self._unlock()
            raise cannot_write(directory, error) from error
        self._position = self._read_entries()
        self._read_prompts()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and let others write the directory."""
        self._records.close()
        self._prompt_file.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def append(self, record: Record) -> Entry:
        """Write a finished simulation's line and hand it to the operating system.

        Raises:
            UserError: the disk is full or gone, and the file is left without the torn line; or others changed the file.
        """
        line = record_redactor.redact_bytes(record.as_line())
        if os.fstat(self._records.fileno()).st_size != self._position:
            raise UserError(f"{self.directory / RECORD_FILE} was changed by another program during the run")
        self._write(self._records, RECORD_FILE, line, record.key.label)
        entry = self._remember(record, self._position, len(line))
        self._position += len(line)
        return entry

    def keep_prompt(self, digest: str, text: str) -> None:
        """Write a system prompt once; records name it by its digest.

        Raises:
            UserError: as `append`.
        """
        if digest not in self._prompts:
            line = record_redactor.redact_bytes(encode_line({"digest": digest, "text": text}))
            self._write(self._prompt_file, PROMPT_FILE, line, "a prompt")
            self._prompts.add(digest)

    def read(self, entry: Entry) -> dict[str, Any]:
        """A stored record, read back from its place."""
        with open_file(self.directory / RECORD_FILE) as file:
            file.seek(entry.offset)
            return read_line(file.read(entry.length)).as_dict()

    def records(self, domain: str, wanted: Callable[[SimulationKey], bool] | None = None) -> Iterator[dict[str, Any]]:
        """The domain's records that count, in the order of their lines, one at a time in memory.

        Args:
            wanted: which of them; None: all.
        """
        found = [
            entry for key, entry in self.entries.items() if key.domain == domain and (wanted is None or wanted(key))
        ]
        with open_file(self.directory / RECORD_FILE) as file:
            for entry in sorted(found, key=_offset):
                file.seek(entry.offset)
                yield read_line(file.read(entry.length)).as_dict()

    @property
    def finished(self) -> set[SimulationKey]:
        """The simulations that need not be run again."""
        return {key for key, entry in self.entries.items() if entry.finished}

    def _read_entries(self) -> int:
        """Read what is stored; the file's length once a torn last line is cut off."""
        path = self.directory / RECORD_FILE
        position = 0
        for line in stored_lines(path):
            if line.record is None:
                self.damage.add(line)
            else:
                self._remember(line.record, line.offset, line.length)
            position = line.offset + line.length
            if not line.ended:
                position += self._records.write(b"\n")
                break
        os.ftruncate(self._records.fileno(), position)
        return position

    def _remember(self, record: Record, offset: int, length: int) -> Entry:
        entry = self.entries[record.key] = _entry_of(record, offset, length)
        self.cost_usd += entry.cost_usd
        return entry

    def _write(self, file: BinaryIO, name: str, line: bytes, what: str) -> None:
        """Append a line whole or not at all."""
        before = os.fstat(file.fileno()).st_size
        rest = memoryview(line)
        try:
            while rest:  # an unbuffered file may take less than it is given
                rest = rest[file.write(rest) :]
        except OSError as error:
            os.ftruncate(file.fileno(), before)
            raise UserError(
                f"cannot store {what} in {self.directory / name}: {error.strerror or error}; "
                f"make room and go on: {typed('run', f'resume={self.directory}')}"
            ) from error

    def _read_prompts(self) -> None:
        path = self.directory / PROMPT_FILE
        whole = 0
        with open_file(path) as file:
            for line in lines_of(file):
                ended = line.endswith(b"\n")
                try:
                    self._prompts.add(str(decode_line(line)["digest"]))
                except (ValueError, KeyError, TypeError):
                    if not ended:
                        break
                whole += len(line)
                if not ended:
                    whole += self._prompt_file.write(b"\n")
                    break
        os.ftruncate(self._prompt_file.fileno(), whole)


def _offset(entry: Entry) -> int:
    return entry.offset


def _entry_of(record: Record, offset: int, length: int) -> Entry:
    turns = record.notes.get("user_turns_as_agent")
    return Entry(
        key=record.key,
        offset=offset,
        length=length,
        termination_reason=record.termination_reason,
        reward=record.reward,
        duration_s=record.duration_s,
        cost_usd=sum(record.cost_by_role.values()),
        cost_unknown=record.cost_unknown,
        input_tokens=record.tokens("input_tokens"),
        output_tokens=record.tokens("output_tokens"),
        user_turns_as_agent=turns if isinstance(turns, int) else 0,
        trimmed_calls=sum(1 for call in record.calls if call.get("trimmed_messages")),
        spending=spending_of(record.calls),
        replies=flat_counts(record.replies),
        error=record.error,
        experts=tuple(expert_use(record.calls, record.messages).items()),
        transferred=was_transferred(record.messages),
    )
