"""Verdicts of people on simulations (`--labels`): one JSON line each, read with care."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.regular import read_given

_FORM = '{"domain": "retail", "task_id": "5", "trial": 0, "customer": true}'


def read_labels(path: Path) -> dict[SimulationKey, bool]:
    """By simulation, whether the customer made an error that decides; the last line of each counts.

    Raises:
        UserError: the file cannot be read, or a line is of another form.
    """
    found: dict[SimulationKey, bool] = {}
    try:
        lines = read_given(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"--labels {path}: cannot be read: {reason}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key, label = _label(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"--labels {path}: line {number} is not of the form {_FORM}") from None
        found[key] = label
    if not found:
        raise UserError(f"--labels {path}: it holds no label; a line is {_FORM}")
    return found


def _label(value: Any) -> tuple[SimulationKey, bool]:
    label, trial = value["customer"], value.get("trial", 0)
    if not isinstance(label, bool) or not isinstance(trial, int):
        raise TypeError
    return SimulationKey(str(value["domain"]), str(value["task_id"]), trial), label
