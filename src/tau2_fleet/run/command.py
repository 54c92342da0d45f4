"""The command `run`: help, or the jobs of a command line through Hydra."""

from __future__ import annotations

from collections.abc import Sequence

from tau2_fleet.config import help
from tau2_fleet.errors import ExitStatus


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; returns the worst exit status of its jobs."""
    if help.is_asked_for(arguments):
        from tau2_fleet.display.console import out

        out.print(help.text(), markup=False)
        return ExitStatus.FINISHED
    from tau2_fleet.run.jobs import run_command_line  # Hydra takes half a second to import

    return run_command_line(arguments)
