"""`tau2-fleet compare --baseline A… --candidate B…`: is the candidate better, and may that be asked at all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.compare.checkpoints import between_checkpoints
from tau2_fleet.compare.comparison import OVERALL, Comparison, compare
from tau2_fleet.compare.document import Document, document
from tau2_fleet.compare.effects import remember
from tau2_fleet.compare.forms import FORMS, file_bytes, show_comparison
from tau2_fleet.compare.gate import Decision, Policy, decide, read_points, read_policy, whole
from tau2_fleet.compare.inputs import read_inputs
from tau2_fleet.compare.names import refuse_misspelt
from tau2_fleet.compare.sides import (
    ComparedSide,
    NotComparable,
    are_copies,
    common_tasks,
    grouped,
    is_allowed,
    lost,
    pooled,
    refuse_shared,
    refuse_unlike,
    unknown_keys,
)
from tau2_fleet.compare.sources import ResultsSource, SimulationOutcome
from tau2_fleet.display.console import complain, out, tell, wide
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.power import LEVEL
from tau2_fleet.invocation import typed
from tau2_fleet.record.atomic import replaced

Compared = dict[str, tuple[Comparison, list[Decision]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, a gate's verdict among them."""
    parser = _parser()
    options, more = parser.parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    if more:
        sides = "" if more[0].startswith("-") else "; the sides are named: --baseline DIR --candidate DIR"
        parser.error(f"unrecognized arguments: {' '.join(more)}{sides}")
    try:
        return _compare(options)
    except NotComparable as error:
        complain(str(error))
        return ExitStatus.REFUSED
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--fail-below -3pp` as one word: argparse takes a value that begins with - for a flag."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--fail-below":
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _compare(options: argparse.Namespace) -> ExitStatus:
    for path in options.output:
        if path.suffix.lower() not in FORMS:
            raise UserError(f"-o {path}: expected a name that ends in {', '.join(FORMS)}")
    policy = _policy(options)
    baselines = options.baseline or ([policy.baseline] if policy is not None and policy.baseline else [])
    asked = _asked(baselines, options)
    compared: Compared = {}
    documents: list[Document] = []
    for name, baseline, candidate in asked.sides:
        comparison = _comparison(baseline, candidate, options, asked.notes)
        decisions = [] if policy is None else decide(comparison, policy.margins)
        compared[name] = comparison, decisions
        documents.append(document(comparison, decisions))
        remember(comparison)
    if asked.checkpoints is not None:
        if policy is not None:
            raise UserError(f"a gate compares runs of one model a side: leave out --by {options.by}")
        documents.append(asked.checkpoints)
    for path in options.output:
        _write(path, documents, compared)
    if options.json:
        sys.stdout.write(file_bytes(Path("-.json"), documents, compared).decode())
    else:
        for index, shown in enumerate(documents):
            if index:
                wide.print()
            show_comparison(shown, wide)
        for path in options.output:
            out.print(f"written: {path}", markup=False)
        if any((comparison.overall.p or 0.0) > LEVEL for comparison, _ in compared.values()):
            out.print(f"what would show more:  {typed('plan', *baselines)}", markup=False)
    if options.wandb:
        from tau2_fleet.compare.tracked import log_to_wandb

        told = log_to_wandb(compared)
        tell(told) if options.json else out.print(told, markup=False)
    every = [decision for _, decisions in compared.values() for decision in decisions]
    if not every:
        return ExitStatus.FINISHED
    verdict = whole(every)
    if not options.json:
        out.print(f"gate {verdict}: {'; '.join(decision.line for decision in every)}", markup=False)
    return verdict.exit_status


def _policy(options: argparse.Namespace) -> Policy | None:
    policy = None if options.policy is None else read_policy(options.policy)
    if options.fail_below is None:
        return policy
    own = {OVERALL: read_points(options.fail_below, "--fail-below")}
    return Policy(own) if policy is None else Policy(own | policy.margins, policy.baseline)


@dataclass(frozen=True, slots=True)
class _ComparedSides:
    """What is to be compared with what."""

    sides: list[tuple[str, ComparedSide, ComparedSide]]
    """Name, baseline, candidate."""
    notes: Sequence[str]
    """What is not compared, of what was given."""
    checkpoints: Document | None = None
    """In place of sides, where checkpoints of either side are compared."""


def _asked(baselines: Sequence[str], options: argparse.Namespace) -> _ComparedSides:
    allowed: list[str] = options.allow_diff
    if not options.candidate:
        if options.by is None or not baselines:
            raise UserError("compare needs --baseline A… and --candidate B…, or --baseline SWEEP --by KEY")
        found = read_inputs(baselines)
        _refuse_misspelt(options, found.sources)
        groups = [pooled(value, sources, allowed) for value, sources in grouped(found.sources, options.by)]
        if len(groups) < 2:
            raise UserError(f"--by {options.by}: all runs have {groups[0].name}; there is nothing to compare")
        return _ComparedSides([(f"{options.by}={side.name}", groups[0], side) for side in groups[1:]], found.notes)
    if not baselines:
        raise UserError("--baseline is missing: what the candidate is compared with, a directory or a results file")
    first, second = read_inputs(baselines), read_inputs(options.candidate)
    _refuse_misspelt(options, [*first.sources, *second.sources])
    refuse_shared(first.sources, second.sources)
    notes = [*first.notes, *second.notes]
    if options.by is None:
        sides = pooled("baseline", first.sources, allowed), pooled("candidate", second.sources, allowed)
        return _ComparedSides([("overall", *sides)], notes)
    before, after = dict(grouped(first.sources, options.by)), dict(grouped(second.sources, options.by))
    sides_by_value = [
        (f"{options.by}={value}", pooled("baseline", found, allowed), pooled("candidate", after[value], allowed))
        for value, found in before.items()
        if value in after
    ]
    if not sides_by_value:
        checkpoints = between_checkpoints(first.sources, second.sources, options.by, notes, allowed)
        return _ComparedSides([], notes, checkpoints)
    notes += [
        f"passed over: {options.by}={value}, which only the {name} has ({', '.join(one.name for one in found)})"
        for name, own, other in (("baseline", before, after), ("candidate", after, before))
        for value, found in own.items()
        if value not in other
    ]
    return _ComparedSides(sides_by_value, notes)


def _refuse_misspelt(options: argparse.Namespace, sources: Sequence[ResultsSource]) -> None:
    refuse_misspelt("--allow-diff", options.allow_diff, sources)
    refuse_misspelt("--by", [options.by] if options.by else [], sources)


def _comparison(
    baseline: ComparedSide, candidate: ComparedSide, options: argparse.Namespace, more_notes: Sequence[str] = ()
) -> Comparison:
    differing = refuse_unlike(baseline, candidate, [*options.allow_diff, *([options.by] if options.by else [])])
    tasks = common_tasks(baseline, candidate, enough=options.common_tasks)
    notes = [*more_notes, *(note for side in (baseline, candidate) for one in side.sources for note in one.notes)]
    if are_copies(baseline, candidate):
        notes.append("one side's simulations are the other's to the last figure: is it a copy of the same run?")
    notes += [f"allowed to differ: {told}" for told in differing]
    notes += [
        f"--allow-diff {key}: nothing of it differs"
        for key in options.allow_diff
        if not any(is_allowed(told.partition(" ")[0], [key]) for told in differing)
    ]
    notes += [f"tasks that are not compared: {told}" for told in lost(tasks)]
    unknown = unknown_keys(baseline, candidate)
    if unknown:
        notes.append(f"only one side's files say something of {', '.join(unknown)}, which is therefore not compared")
    beside = next((path.parent for path in options.output if path.suffix.lower() in (".html", ".md")), None)

    def link(side: ComparedSide, outcome: SimulationOutcome) -> str | None:
        return side.link(outcome, beside=beside)

    return compare(baseline, candidate, tasks.common, list(dict.fromkeys(notes)), link)


def _write(path: Path, documents: Sequence[Document], compared: Compared) -> None:
    with replaced(path) as file:
        file.write(file_bytes(path, documents, compared))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet compare",
        description="Compare two sides on the same tasks: is the candidate better than the baseline?",
        epilog="Every difference is candidate minus baseline, in percentage points. Exit status: 0 done, 2 refused, "
        "and of a gate 0 passed, 3 failed, 4 undecided.",
    )
    what = "run directories, sweeps, results files; several are pooled as trials of the same tasks"
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="DIR", help=f"{what}; or wandb:ENTITY/PROJECT/NAME:VERSION"
    )
    parser.add_argument("--candidate", nargs="+", default=[], metavar="DIR", help="the same of the other side")
    parser.add_argument(
        "--by", metavar="KEY", help="part a sweep by this key (seed, agent.model): the first value is the baseline"
    )
    parser.add_argument(
        "--allow-diff",
        action="append",
        default=[],
        metavar="KEY",
        help="what may differ: user_llm, max_steps, benchmark, …",
    )
    parser.add_argument("--common-tasks", action="store_true", help="compare the tasks that both sides have")
    parser.add_argument("--fail-below", metavar="-3pp", help="a gate: not worse than this, as --fail-below=-3pp")
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="a gate's margins by domain, and its baseline (YAML)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"also write it: a name that ends in {', '.join(FORMS)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--wandb", action="store_true", help="log it as a W&B run in the candidate's group")
    return parser
