"""The entry point `python -m src.main key=value ...`: help, errors for people, and the exit status."""

from __future__ import annotations

import sys

from src import help
from src.collector import collect_seldom


def main() -> int:
    """The exit status of spec 10: 0 finished, 1 wrong configuration, 3 infrastructure errors, 130 interrupted."""
    collect_seldom()
    try:
        if help.is_asked_for(sys.argv[1:]):
            from src.telemetry.console import out

            out.print(help.text(), markup=False)
            return 0
        from src.jobs import run_command_line  # Hydra takes half a second to import

        return run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
