"""`tau2-fleet forecast [--from DIR] key=value …`: what a run would come to, before anything is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import ExitStatus, UserError

if TYPE_CHECKING:
    from tau2_fleet.run.expectation import Expectation

_HELP = """usage: tau2-fleet forecast [--from DIR]... [--json] [key=value ...]

Says what tau2-fleet run with these settings would come to: calls and tokens by role, dollars, wall time, each with an
80% interval. Nothing is started.
  --from DIR   from what the simulations of this run (or sweep) came to; without it, from typical lengths
  --json       print JSON"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    from tau2_fleet.display.console import complain, out

    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(argument in ("-h", "--help") for argument in given):
        out.print(_HELP, markup=False)
        return ExitStatus.FINISHED
    try:
        directories, overrides, as_json = _taken_apart(given)
        expected = _forecast(directories, overrides)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    if as_json:
        sys.stdout.write(json.dumps(as_dict(expected), indent=2) + "\n")
    else:
        from tau2_fleet.run.expectation import lines

        for line in lines(expected):
            out.print(line, markup=False)
    return ExitStatus.FINISHED


def as_dict(expected: Expectation) -> dict[str, Any]:
    """Ready for JSON: every total as `expected`, `low`, `high`."""
    return asdict(expected)


def _taken_apart(given: Sequence[str]) -> tuple[list[Path], list[str], bool]:
    directories: list[Path] = []
    overrides: list[str] = []
    rest = iter(given)
    as_json = False
    for argument in rest:
        if argument == "--from" or argument.startswith("--from="):
            text = argument.partition("=")[2] or next(rest, "")
            if not text:
                raise UserError("--from needs a run directory")
            directories.append(Path(text).expanduser())
        elif argument == "--json":
            as_json = True
        elif argument.startswith("-"):
            raise UserError(f"{argument}: forecast takes --from DIR, --json and keys (key=value)")
        else:
            overrides.append(argument)
    return directories, overrides, as_json


def _forecast(directories: Sequence[Path], overrides: Sequence[str]) -> Expectation:
    from tau2_fleet.analysis.profile_reader import run_directories
    from tau2_fleet.config import load_config
    from tau2_fleet.config.command_line import for_hydra, read_dotenv
    from tau2_fleet.config.compose import compose
    from tau2_fleet.config.expert_choice import choose_experts
    from tau2_fleet.config.validation import with_absolute_paths
    from tau2_fleet.llm.prices import PriceTable
    from tau2_fleet.record.reading import RECORD_FILE
    from tau2_fleet.record.sweep_jobs import tell_jobs_without
    from tau2_fleet.run.directory import register_resolvers
    from tau2_fleet.run.earlier_runs import read_earlier
    from tau2_fleet.run.expectation import expect
    from tau2_fleet.run.plan import plan_run

    read_dotenv()
    register_resolvers(overrides)
    tree = compose(for_hydra(overrides))
    choose_experts(tree)
    with_absolute_paths(tree)
    plan = plan_run(load_config(tree))
    tell_jobs_without(directories, RECORD_FILE)
    earlier = read_earlier(run_directories(directories, RECORD_FILE)) if directories else None
    return expect(plan, plan.schedule, PriceTable.shipped(), earlier)
