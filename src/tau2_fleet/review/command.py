"""`tau2-fleet review DIR… [--judge MODEL]`: whose fault it was, and the score without the customer's mistakes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.analysis.profile_reader import run_directories
from tau2_fleet.display.console import complain, out, tell, wide
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.invocation import typed
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.review.options import ReviewOptions
from tau2_fleet.review.review import Reviewed, review_run
from tau2_fleet.review.shown import aligned, estimate_text, kinds_table, scores_table
from tau2_fleet.run.interrupts import ended_like_ctrl_c


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        with ended_like_ctrl_c():
            return _review(options)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED


def _review(options: argparse.Namespace) -> ExitStatus:
    words: list[str] = options.words
    directories = [Path(word) for word in words if not _is_key(word)]
    if not directories:
        raise UserError("review needs a run directory: tau2-fleet review DIR")
    chosen = ReviewOptions.of(options, [word for word in words if _is_key(word)])
    statuses, documents = [], {}
    for directory in run_directories(directories, RECORD_FILE):
        reviewed = review_run(directory, chosen)
        statuses.append(reviewed.status)
        documents[str(directory)] = reviewed.document
        if not options.json:
            _show(directory, reviewed)
        if options.wandb:
            from tau2_fleet.review.tracked import log_to_wandb

            tell(log_to_wandb(directory, reviewed.document))
    if options.json:
        only = next(iter(documents.values())) if len(documents) == 1 else documents
        sys.stdout.write(json.dumps(only, indent=2, ensure_ascii=False) + "\n")
    return ExitStatus.worst(statuses)


def _is_key(word: str) -> bool:
    return "=" in word and not Path(word).is_dir()


def _show(directory: Path, reviewed: Reviewed) -> None:
    def line(text: str = "") -> None:
        wide.print(text, markup=False)

    line(str(directory))
    kinds = kinds_table(reviewed.reviews)
    if len(kinds) > 1:
        for text in aligned(kinds, (2, 3, 4)):
            line(text)
    else:
        line("no error was found, of the customer or of the agent")
    line()
    for text in aligned(scores_table(reviewed.scores), (1, 4, 5, 6, 7)):
        line(text)
    overall = reviewed.scores["overall"]
    if overall.corrected is None and overall.upper_bound is not None:
        line(f"failures alone were reviewed: {estimate_text(overall.upper_bound)} is an upper bound, no estimate")
    for text in reviewed.remarks:
        line(text)
    for path in reviewed.files:
        out.print(f"written: {path}", markup=False)
    out.print(f"look: {typed('report', str(directory))}", markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet review",
        description="Say of passes and failures alike what the customer and the agent did wrong, and what the score is "
        "without the simulations in which the customer erred. Rules need no model; --judge asks one as well.",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="DIR | KEY=VALUE",
        help="run directories, or a sweep's; keys of the model (judge.temperature=0), of the review (review.votes=5)",
    )
    parser.add_argument(
        "--judge",
        metavar="MODEL",
        help="a model of conf/llm/ that reviews every simulation too (default: none; simulated costs nothing)",
    )
    parser.add_argument("--votes", type=int, metavar="K", help="as review.votes: answers for each simulation (3)")
    parser.add_argument(
        "--max-cost-usd", type=float, metavar="USD", help="as review.max_cost_usd: what all of them may cost (5)"
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="let the model review a sample, of every domain, passed and failed"
    )
    parser.add_argument(
        "--failed", action="store_true", help="review failures alone: what comes out is an upper bound, no estimate"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="verdicts of people, a JSON line each: precision and recall"
    )
    parser.add_argument("--wandb", action="store_true", help="log the figures to Weights & Biases")
    parser.add_argument("--json", action="store_true", help="print review.json")
    return parser
