"""The command `run`: help, or the jobs of a command line through Hydra."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tau2_fleet.config import help
from tau2_fleet.errors import ExitStatus, UserError


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; returns the worst exit status of its jobs."""
    if help.is_asked_for(arguments):
        return _help(arguments)
    from tau2_fleet.run.jobs import run_command_line  # Hydra takes half a second to import

    return run_command_line(arguments)


def _help(arguments: Sequence[str]) -> int:
    try:
        sys.stdout.write(help.text(arguments))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitStatus.FAILED
    return ExitStatus.FINISHED
