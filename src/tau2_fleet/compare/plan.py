"""`tau2-fleet plan DIR… --detect 3pp`: how many trials and tasks show such a difference, and what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean

from rich.table import Table

from tau2_fleet.compare.effects import remembered
from tau2_fleet.compare.gate import points, read_points
from tau2_fleet.compare.inputs import read_inputs
from tau2_fleet.compare.names import refuse_misspelt
from tau2_fleet.compare.sides import ComparedSide, NotComparable, pooled
from tau2_fleet.compare.sources import ResultsSource
from tau2_fleet.display.console import complain, out, tell, wide
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.planning import POWER, Noise, smallest_difference, tasks_needed, trials_needed
from tau2_fleet.record.summary import read_summary

STATED = (0.0, 0.1, 0.2)
"""Standard deviations of effects over tasks that are tried where nothing is known of them: all tasks move alike, and
two where tasks move apart."""
_TRIALS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Pilot:
    """What earlier runs say of chance and cost."""

    tasks: int
    trials: int
    """Of the task that has the fewest."""
    within: float
    """σ²: variance of one trial around its task's rate, the mean over tasks."""
    within_is_bound: bool
    """Whether that is the most it can be, for want of a second trial."""
    cost_usd: float | None
    """Of a simulation, the mean."""
    duration_s: float
    at_once: float
    """Simulations in flight, the mean over the run."""
    infrastructure: int = 0
    """Simulations that ended for a reason outside agent, user and environment; they count as failures."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """For one spread of effects over tasks."""

    effects_sd: float
    """Shares: 0.1 is ten percentage points."""
    trials: int | None
    """Of each of the pilot's tasks, on both sides; None: not reachable with these tasks."""
    trials_beside_pilot: int | None
    """Of the candidate alone, with the pilot as the baseline."""
    cost_usd: float | None
    """Of both sides' trials."""
    hours: float | None
    tasks_by_trials: dict[int, int]
    """Trials of a task to the tasks that it takes then."""
    smallest_now: float | None
    """The difference that shows with the pilot's own tasks and trials on both sides."""


def pilot_of(side: ComparedSide) -> Pilot:
    """What a side's runs say."""
    shares = [(sum(one.passed for one in trials) / len(trials), len(trials)) for trials in side.trials.values()]
    repeated = [(share, count) for share, count in shares if count > 1]
    mean = fmean(share for share, _ in shares)
    within = (
        fmean(share * (1 - share) * count / (count - 1) for share, count in repeated) if repeated else mean * (1 - mean)
    )
    every = [one for trials in side.trials.values() for one in trials]
    total_s = sum(one.duration_s for one in every)
    wall_s = sum(_wall_s(source) for source in side.sources)
    costs = [one.cost_usd for one in every]
    return Pilot(
        tasks=len(shares),
        trials=min(count for _, count in shares),
        within=within,
        within_is_bound=not repeated,
        cost_usd=None if None in costs else fmean(cost for cost in costs if cost is not None),
        duration_s=total_s / len(every),
        at_once=max(total_s / wall_s, 1.0) if wall_s else 1.0,
        infrastructure=sum(one.infrastructure for one in every),
    )


def _wall_s(source: ResultsSource) -> float:
    found = read_summary(source.path, quiet=True).get("duration_s") if source.path.is_dir() else None
    return float(found) if isinstance(found, int | float) else 0.0


def sample_size(pilot: Pilot, difference: float, effects_sd: float, power: float = POWER) -> SampleSize:
    """What it takes to see a difference, in shares."""
    noise = Noise(effects_sd**2, pilot.within, pilot.within)
    trials = trials_needed(difference, pilot.tasks, noise, power)
    simulations = None if trials is None else 2 * trials * pilot.tasks
    return SampleSize(
        effects_sd=effects_sd,
        trials=trials,
        trials_beside_pilot=trials_needed(difference, pilot.tasks, noise, power, pilot.trials),
        cost_usd=None if simulations is None or pilot.cost_usd is None else simulations * pilot.cost_usd,
        hours=None if simulations is None else simulations * pilot.duration_s / pilot.at_once / 3600,
        tasks_by_trials={count: tasks_needed(difference, count, noise, power) for count in _TRIALS},
        smallest_now=smallest_difference(pilot.tasks, pilot.trials, noise, power),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _plan(options)
    except NotComparable as error:
        complain(str(error))
        return ExitStatus.REFUSED
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    return ExitStatus.FINISHED


def _plan(options: argparse.Namespace) -> None:
    difference = abs(read_points(options.detect, "--detect"))
    if not difference:
        raise UserError("--detect=0pp: no number of trials shows a difference of nothing")
    if not 0.05 < options.power < 1:
        raise UserError(f"--power={options.power:g}: expected a chance between 0.05 and 1, such as 0.8")
    inputs = read_inputs(options.runs)
    refuse_misspelt("--allow-diff", options.allow_diff, inputs.sources)
    side = pooled("pilot", inputs.sources, options.allow_diff)
    pilot = pilot_of(side)
    deviations, whence = _effects(options, side)
    answers = [sample_size(pilot, difference, one, options.power) for one in deviations]
    for note in inputs.notes:
        tell(note, "note: ", "yellow")
    if options.json:
        value = {"detect_pp": 100 * difference, "power": options.power, "pilot": asdict(pilot), "effects_from": whence}
        json.dump({**value, "answers": [asdict(one) for one in answers]}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    out.print(
        f"To see a difference of {points(difference)} with {options.power:.0%} power (two-sided, 5%) on the "
        f"{pilot.tasks} tasks of {', '.join(source.name for source in side.sources)}:",
        markup=False,
    )
    wide.print()
    wide.print(_table(answers))
    wide.print()
    for line in _said(pilot, whence):
        out.print(line, markup=False)


def _effects(options: argparse.Namespace, side: ComparedSide) -> tuple[list[float], str]:
    """Standard deviations of effects over tasks to plan with, and where they are from."""
    if options.effects_sd:
        return sorted(abs(read_points(one, "--effects-sd")) for one in options.effects_sd), "--effects-sd"
    known = remembered({task.partition("/")[0] for task in side.trials})
    if known is not None:
        comparisons = f"{known[1]} earlier comparison{'s' if known[1] > 1 else ''} of these domains"
        return [sqrt(known[0])], f"{comparisons} in the cache"
    return list(STATED), "a stated range"


def _table(answers: Sequence[SampleSize]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    headings = ("effects differ over tasks by", "trials a side", "beside these runs", "dollars", "hours", "shown now")
    for heading in (*headings, *(f"tasks at {count}" for count in _TRIALS)):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in answers:
        table.add_row(
            f"± {100 * one.effects_sd:.1f} pp",
            "not reachable" if one.trials is None else str(one.trials),
            "not reachable" if one.trials_beside_pilot is None else str(one.trials_beside_pilot),
            "-" if one.cost_usd is None else f"${one.cost_usd:,.2f}",
            "-" if one.hours is None else f"{one.hours:,.1f}",
            "-" if one.smallest_now is None else points(one.smallest_now),
            *(f"{count:,}" for count in one.tasks_by_trials.values()),
        )
    return table


def _said(pilot: Pilot, whence: str) -> list[str]:
    lines = [
        "trials a side: of each task, baseline and candidate alike; dollars and hours are for both. beside these runs: "
        "of the candidate alone, with these runs as the baseline. shown now: what these runs' own numbers show. tasks "
        "at k: how many tasks like these it takes with k trials a side.",
        f"How much effects differ over tasks is from {whence}; one run knows nothing of it, and more trials do not "
        "help against it: where a row is not reachable, only more tasks do (--effects-sd 5pp states another).",
        "n = (z + z)² (ω² + σ²/K + σ²/K) / δ², Miller 2024 (arXiv:2411.00640); the power is that of compare's test.",
    ]
    if pilot.infrastructure:
        lines.append(
            f"{pilot.infrastructure} simulations of the pilot are infrastructure failures, which count as failures: "
            "a plan from a run without them is another one."
        )
    if not pilot.within:
        lines.append(
            "No task went both ways in the pilot, so chance counts as none: a candidate whose tasks do needs more."
        )
    elif pilot.within_is_bound:
        lines.append("Chance within tasks is taken as large as it can be, for want of a second trial: fewer may do.")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet plan", description="How many trials and tasks show a difference, and what they cost."
    )
    parser.add_argument(
        "runs", nargs="+", metavar="DIR", help="earlier runs like the planned ones: directories or files"
    )
    parser.add_argument("--detect", default="3pp", metavar="3pp", help="the difference to see (default: %(default)s)")
    parser.add_argument("--power", type=float, default=POWER, metavar="P", help="the chance to see it (default: 0.8)")
    parser.add_argument(
        "--effects-sd", nargs="+", default=[], metavar="PP", help="how much effects differ over tasks: 0pp 5pp"
    )
    parser.add_argument(
        "--allow-diff",
        action="append",
        default=[],
        metavar="KEY",
        help="let the runs differ in this key, and all below it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    return parser
