"""The other end of a run's socket: asks one thing and takes the answer; `command.py` and `watching.py` use it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.control.address import connect
from tau2_fleet.control.beacon import Beacon, read_beacon
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, State, Status, Verb
from tau2_fleet.control.remains import is_run, status_of_remains
from tau2_fleet.errors import UserError

_ANSWER_S = 8.0
_LONGEST_ANSWER = 2**24


class SilentRunError(Exception):
    """Nobody answers at the socket."""


def ask(run_dir: Path, request: ControlRequest) -> ControlAnswer:
    """Ask a run to do something.

    Raises:
        UserError: it does not go on, or not here, or does not answer.
    """
    beacon = read_beacon(run_dir)
    try:
        value = _talk(beacon, request)
        return ControlAnswer(bool(value["done"]), tuple(map(str, value["said"])), bool(value["refused"]))
    except SilentRunError as error:
        raise UserError(_why_not(run_dir, beacon, error)) from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{run_dir}: the run gave an answer that cannot be understood (another version?)") from error


def status(run_dir: Path) -> Status:
    """How a run is: as it says, or as its files show.

    Raises:
        UserError: there is no run.
    """
    beacon = read_beacon(run_dir)
    if beacon is None and not is_run(run_dir):
        raise UserError(f"{run_dir} is no run directory" if run_dir.is_dir() else f"there is no directory {run_dir}")
    try:
        return Status.of(_talk(beacon, ControlRequest(Verb.status)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{run_dir}: the run gave a status that cannot be understood (another version?)") from error
    except SilentRunError:
        return status_of_remains(run_dir, read_beacon(run_dir))  # it may have ended at this very moment


def _talk(beacon: Beacon | None, request: ControlRequest) -> dict[str, Any]:
    if beacon is None or not beacon.here:
        raise SilentRunError("no run here")
    if beacon.socket is None:
        raise SilentRunError("it has no socket")
    given = {name: value for name, value in asdict(request).items() if value}
    try:
        with connect(beacon.socket, _ANSWER_S) as connection:
            connection.sendall(orjson.dumps(given) + b"\n")
            found, until_s = bytearray(), time.monotonic() + _ANSWER_S
            while more := connection.recv(2**16):
                found += more
                if len(found) > _LONGEST_ANSWER or time.monotonic() > until_s:
                    raise SilentRunError("its answer has no end")
        value = orjson.loads(bytes(found))
    except (OSError, ValueError) as error:
        raise SilentRunError(str(error)) from error
    if not isinstance(value, dict):
        raise SilentRunError("its answer is none")
    return value


def _why_not(run_dir: Path, beacon: Beacon | None, error: SilentRunError) -> str:
    """Why a run cannot be asked, and what can be done."""
    if beacon is not None and not beacon.here:
        return f"the run in {run_dir} is on {beacon.host}: say the same there (ssh {beacon.host}, srun --overlap)"
    if isinstance(error.__cause__, PermissionError):
        return f"the run in {run_dir} is another user's; only that user can ask it for something"
    found = status(run_dir)
    if found.state in (State.ended, State.died, State.unbegun):
        return f"the run in {run_dir} does not go on ({found.state}: {found.doing})"
    return f"the run in {run_dir} does not answer ({error}); tau2-fleet ctl status says more"
