"""The tasks of a run, read from its results files; `show` and the report put them beside conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from tau2_fleet.record.line import decode_line
from tau2_fleet.regular import lines_of, open_file

Json = dict[str, Any]


class TaskTexts:
    """The tasks of a run by `domain/id`, from its results files; read when the first is asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def _tasks(self) -> dict[str, Json]:
        return {
            f"{path.stem}/{task.get('id')}": task
            for path in sorted(self._directory.glob("*.json"))
            for task in _readable(path)
        }

    def get(self, name: str) -> Json | None:
        """The task in the benchmark's form; None where no results file has it (a live run, say)."""
        return self._tasks.get(name)


def _readable(path: Path) -> Iterator[Json]:
    """The tasks of a file as far as it can be read."""
    with suppress(OSError):
        yield from _tasks_of(path)


def _tasks_of(path: Path) -> Iterator[Json]:
    """The tasks at the head of a results file, one a line, without reading its simulations."""
    with open_file(path) as file:
        if not file.readline(2**16).startswith(b'{"timestamp"'):
            return
        for line in lines_of(file):
            if line.startswith(b'"tasks": ['):
                break
            if not line.startswith(b'"info"'):
                return
        for line in lines_of(file):
            if line.startswith(b"]"):
                return
            try:
                task = decode_line(line.lstrip(b","))
            except ValueError:
                return
            if isinstance(task, dict):
                yield task
