"""A review of a run in the terminal: errors by kind, raw and corrected score, and how far to trust them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tau2_fleet.analysis.reviews import ErrorKind, Mark, Party, Review, Severity
from tau2_fleet.evaluation.proportions import Estimate
from tau2_fleet.review.scores import Score

_PARTIES = {Party.customer: "customer", Party.agent: "agent", Party.setup: "setup"}


def estimate_text(estimate: Estimate | None) -> str:
    """`0.812 [0.760, 0.855]`; a dash where there is none."""
    return "-" if estimate is None else str(estimate)


def kinds_table(reviews: Sequence[Review]) -> list[tuple[str, ...]]:
    """Head and rows: errors by party and kind, with the simulations that have them, failed and passed ones apart."""
    counts: Counter[tuple[ErrorKind, bool]] = Counter()
    decisive: Counter[ErrorKind] = Counter()
    example: dict[ErrorKind, str] = {}
    for one in reviews:
        passed = one.reward >= 1 - 1e-6
        for kind in {mark.kind for mark in one.marks}:
            counts[kind, passed] += 1
            decisive[kind] += any(mark.kind is kind and mark.severity is Severity.major for mark in one.marks)
            example.setdefault(kind, f"{one.key.domain}/{one.key.task_id}/{one.key.trial}")
    rows = [
        (
            str(kind.party),
            kind.words,
            str(counts[kind, False]),
            str(counts[kind, True]),
            str(decisive[kind]),
            example[kind],
        )
        for kind in ErrorKind
        if kind in example
    ]
    return [("whose", "error", "in failures", "in passes", "major", "an example"), *rows]


def scores_table(found: Mapping[str, Score]) -> list[tuple[str, ...]]:
    """Head and rows: pass^1 raw and corrected, by domain."""
    head = ("", "simulations", "pass^1", "without the customer's errors", "left out", "hindered", "helped", "no effect")
    rows: list[tuple[str, ...]] = [head]
    for name, one in found.items():
        if name == "overall" and len(found) == 2:
            continue
        out = one.left_out
        rows.append(
            (name, str(one.simulations), estimate_text(one.raw), estimate_text(one.corrected), str(out.total),
             str(out.hindered), str(out.helped), str(out.without_effect))
        )  # fmt: skip
    return rows


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
    """The rows of a table as lines, `numbers` being the columns that stand at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if n in numbers else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def told(mark: Mark) -> str:
    """A mark in a line: whose, what, where."""
    where = "" if mark.turn is None else f" at message {mark.turn}"
    return f"{_PARTIES[mark.party]}, {mark.kind.words}{where}: {mark.detail}"
