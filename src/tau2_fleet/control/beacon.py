"""`control.json` of a run directory: where the run can be reached, and its heartbeat with what it was at.

`server.py` writes it while a run goes on; `remains.py` reads it. It is gone once a run has come to its end, however
it ended, so one whose process is gone tells of a death.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

from tau2_fleet.control.messages import VERSION, Status
from tau2_fleet.errors import UserError
from tau2_fleet.record.atomic import replaced
from tau2_fleet.regular import read_whole
from tau2_fleet.telemetry.secrets import redactor

CONTROL_FILE = "control.json"
BEAT_S = 5.0
"""Between two heartbeats,"""
SILENT_S = 4 * BEAT_S
"""and after which a run is said to hang."""
_SAME_S = 2.0
"""Two readings of a process's beginning that are no further apart are of the same process."""


@dataclass(frozen=True, slots=True)
class Beacon:
    """What the file holds."""

    host: str
    pid: int
    began_s: float
    """When the process began, in seconds since the epoch: its number may be another's by now."""
    socket: Path | None
    """None: it could not be opened, and only the heartbeat is there."""
    beat_s: float
    """When it was written, in seconds since the epoch."""
    status: Status

    @property
    def here(self) -> bool:
        """Whether the run is, or was, on this machine."""
        return self.host == socket.gethostname()

    def process(self) -> psutil.Process | None:
        """The run's process, where it is still there; of another machine nothing can be said."""
        try:
            found = psutil.Process(self.pid)
            return found if abs(found.create_time() - self.began_s) < _SAME_S else None
        except psutil.Error:
            return None


def write_beacon(run_dir: Path, path: Path | None, beat_s: float, status: Status) -> None:
    """Write the file anew.

    Raises:
        UserError: it cannot be written.
    """
    value = {
        "v": VERSION,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began_s": psutil.Process().create_time(),
        "socket": None if path is None else str(path),
        "beat_s": beat_s,
        "status": status,
    }
    with replaced(run_dir / CONTROL_FILE, redactor) as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def read_beacon(run_dir: Path) -> Beacon | None:
    """What a run left there; None: nothing that can be understood.

    Raises:
        UserError: the file cannot be read.
    """
    path = run_dir / CONTROL_FILE
    try:
        value: Mapping[str, Any] = orjson.loads(read_whole(path))
        where = value["socket"]
        return Beacon(
            str(value["host"]),
            int(value["pid"]),
            float(value["began_s"]),
            None if where is None else Path(where),
            float(value["beat_s"]),
            Status.of(value["status"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
