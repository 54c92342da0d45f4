"""`benchmarks/table.json`: the rows of the last full run, module by module, and the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

TABLE = Path(__file__).with_name("table.json")


@dataclass(frozen=True, slots=True)
class Measured:
    """One module's rows and when they were measured."""

    rows: list[Row]
    about: Mapping[str, Any]
    """Date, seconds it took, the machine's load before it, its processor and Python."""


def about(seconds: float, load: float) -> dict[str, Any]:
    """What there is to say of a measurement that has just ended."""
    return {
        "date": datetime.now().isoformat(timespec="minutes"),
        "seconds": round(seconds),
        "load": round(load, 2),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def read_table() -> dict[str, Measured]:
    """By module; empty before the first full run."""
    if not TABLE.exists():
        return {}
    return {
        name: Measured([Row.from_dict(row) for row in found["rows"]], found["about"])
        for name, found in json.loads(TABLE.read_text()).items()
    }


def write_table(table: Mapping[str, Measured]) -> None:
    content = {
        name: {"about": dict(found.about), "rows": [row.as_dict() for row in found.rows]}
        for name, found in table.items()
    }
    TABLE.write_text(json.dumps(content, indent=1) + "\n")
