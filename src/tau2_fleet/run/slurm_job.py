"""What a SLURM job's end is like: how long its processes have between SLURM's SIGTERM and its SIGKILL."""

from __future__ import annotations

import os
import re
import subprocess

_DEFAULT_KILL_WAIT_S = 30.0
_LAST_S = 10.0
"""What the files of a run are left at least, where KillWait is as long as usual."""


def kill_wait_s() -> float | None:
    """KillWait of the cluster whose job this is; None outside of jobs."""
    if not os.environ.get("SLURM_JOB_ID"):
        return None
    try:
        text = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return _DEFAULT_KILL_WAIT_S
    found = re.search(r"^KillWait\s*=\s*(\d+)", text, re.MULTILINE)
    return float(found[1]) if found else _DEFAULT_KILL_WAIT_S


def grace_within(kill_wait: float) -> float:
    """Seconds of KillWait that simulations in flight may have, so that the summary is written in time."""
    return kill_wait - _LAST_S if kill_wait >= 2 * _LAST_S else kill_wait / 3
