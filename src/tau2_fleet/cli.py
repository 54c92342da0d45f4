"""The command line `tau2-fleet COMMAND …`: finds the command and hands the rest of the line to it.

Each command lives in its own module with `main(arguments) -> exit status`, imported only when it is asked for.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from tau2_fleet.display.streams import guarded_streams
from tau2_fleet.errors import ExitStatus, exhausted
from tau2_fleet.run.gc_policy import collect_seldom

_DAY_S = 24 * 3600
_LEAST_MEMORY = 768 * 2**20
"""Bytes of addresses; numpy, threads and native parsers take them in advance, and abort where there are none."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `tau2-fleet`."""

    module: str
    """The module whose `main` runs it."""
    summary: str
    """What it does, in half a line."""
    light: bool = False
    """It loads none of the libraries that need many addresses."""


COMMANDS = {
    "run": Command("tau2_fleet.run.command", "run simulations, or a sweep of runs: group=choice key=value ..."),
    "doctor": Command("tau2_fleet.health.doctor", "what a configuration needs, and whether it is there"),
    "serve": Command("tau2_fleet.run.serve", "start a configuration's servers alone"),
    "ctl": Command(
        "tau2_fleet.control.command", "a hand on a run that goes on, and how one is that hangs or died", light=True
    ),
    "merge": Command("tau2_fleet.run.merge", "join shards, or runs of other machines, into one run directory"),
    "show": Command(
        "tau2_fleet.analysis.show", "simulations of a run in the terminal, and why a reward is 0", light=True
    ),
    "analyze": Command("tau2_fleet.analysis.analyze", "where time and money went: tables, CSV files, plots"),
    "report": Command("tau2_fleet.report.command", "one HTML page of whole runs: score, causes, conversations"),
    "review": Command("tau2_fleet.review.command", "whose fault it was, and the score without the customer's mistakes"),
    "export": Command("tau2_fleet.export.command", "tables, training sets, Inspect logs, leaderboard submissions"),
    "compare": Command(
        "tau2_fleet.compare.command", "is one model better than another: intervals, tests, a gate for a CI"
    ),
    "plan": Command(
        "tau2_fleet.compare.plan", "trials and tasks that a difference takes to be seen, and what they cost"
    ),
    "forecast": Command(
        "tau2_fleet.run.forecast", "what a run would cost and how long it would take, before it starts"
    ),
    "rescore": Command("tau2_fleet.analysis.rescore", "score results files or run directories again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (`errors.ExitStatus`)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with guarded_streams() as output:
        status = _main(given)
    if output.problem is None:
        return status
    with guarded_streams():
        sys.stderr.write(f"error: standard output could not be written ({output.problem})\n")
    # A run's results are its files, which are there; what other commands print is all that they do.
    return ExitStatus.FAILED if status == ExitStatus.FINISHED and given[:1] != ["run"] else status


def _main(given: list[str]) -> int:
    collect_seldom()
    if not given or given[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return ExitStatus.FINISHED
    if given[0] == "--version":
        from tau2_fleet import __version__

        sys.stdout.write(f"tau2-fleet {__version__}\n")
        return ExitStatus.FINISHED
    if sys.flags.optimize > 1:
        sys.stderr.write(
            "error: Python was told to strip docstrings (-OO, PYTHONOPTIMIZE=2), and the benchmark's tools are "
            "described by theirs: agents would be sent others. Run it without.\n"
        )
        return ExitStatus.FAILED
    name, *rest = given
    command = COMMANDS.get(name)
    if (problem := _of_the_shell(command)) is not None:
        sys.stderr.write(f"error: {problem}\n")
        return ExitStatus.FAILED
    if command is None:
        sys.stderr.write(f"error: {_unknown(name)}\n")
        return ExitStatus.FAILED
    if "" in rest:
        sys.stderr.write(f"error: {name}: an argument is empty, as of a variable of the shell that is not set\n")
        return ExitStatus.FAILED
    try:
        return int(import_module(command.module).main(rest))
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except SystemExit as error:  # argparse: 2 for a wrong command line
        return ExitStatus.FINISHED if error.code in (None, 0) else ExitStatus.FAILED
    except (MemoryError, RuntimeError) as error:
        if (told := exhausted(error)) is None:
            raise
        sys.stderr.write(f"error: {told}\n")
        return ExitStatus.FAILED


def _of_the_shell(command: Command | None) -> str | None:
    """What a command cannot work with, of all that a shell hands on; None: nothing."""
    try:
        os.getcwd()
    except OSError as error:
        return f"the working directory is not there any longer ({error.strerror}); change to one"
    if max(abs(time.timezone), abs(time.altzone)) >= _DAY_S:
        return f"TZ={os.environ.get('TZ', '')!r} is a day or more from UTC, which is no time zone; mend or unset it"
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if command is not None and command.light:
        return None
    if allowed != resource.RLIM_INFINITY and allowed < _LEAST_MEMORY:
        return (
            f"this process may have {allowed >> 20} MB of address space (ulimit -v), and {_LEAST_MEMORY >> 20} are the "
            "least, without which libraries end it in the middle: raise the limit"
        )
    return None


def run(arguments: Sequence[str] | None = None) -> int:
    """What `python -m src.main` does: the command `run`, or another one that is named first."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return main(given if given and given[0] in COMMANDS else ["run", *given])


def _usage() -> str:
    lines = [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tau2-fleet COMMAND ...",
            "",
            "Runs τ²-bench, the benchmark of customer-service agents, against a fleet of vLLM servers of your own.",
            "",
            *lines,
            "",
            "First of all: tau2-fleet run experiment=smoke (no GPU, no key, no network).",
            "tau2-fleet COMMAND --help says more of a command.",
            "",
        ]
    )


def _unknown(name: str) -> str:
    import difflib

    if "=" in name or name.startswith("-"):
        return f"{name}: a command comes first; tau2-fleet run {name} ... runs simulations"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name}: no such command{hint} (commands: {', '.join(COMMANDS)})"
