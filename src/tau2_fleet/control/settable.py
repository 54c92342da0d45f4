"""The keys that `ctl set` can change in a run that goes on, each with what may be said; `run_control.py` asks."""

from __future__ import annotations

import math
import time

from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.settings import AUTO
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.levels import LogLevel
from tau2_fleet.telemetry.logs import Logs


def set_level(logs: Logs, value: str) -> str:
    """Set the level of run.log; what to say of it.

    Raises:
        UserError: there is no such level.
    """
    if value not in LogLevel.__members__:
        raise UserError(f"log_level={value}: must be one of {', '.join(LogLevel)}")
    logs.set_level(LogLevel[value].number)
    return f"run.log is at {value} from now on"


def concurrency(value: str) -> int | None:
    """A number of simulations; None: auto.

    Raises:
        UserError: it is neither.
    """
    if value == AUTO:
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 100_000):
        raise UserError(f"max_concurrency={value}: must be {AUTO} or a number from 1 to 100000")
    return int(value)


def set_timeout(runner: Runner, value: str) -> str:
    """Set when the run ends; what to say of it.

    Raises:
        UserError: it is no time, or the run is older.
    """
    seconds: float | None = None
    if value != "null":
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise UserError(f"limits.run_timeout_s={value}: must be seconds above 0, counted from the run's beginning")
        age_s = time.monotonic() - runner.limits.began_s
        if seconds <= age_s:
            raise UserError(f"limits.run_timeout_s={value}: the run is {age_s:.0f} s old; drain or Ctrl-C ends it now")
    runner.set_run_timeout(seconds)
    return "the run ends when it is through" if seconds is None else f"the run ends {seconds:g} s after it began"
