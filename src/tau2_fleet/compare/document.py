"""A comparison as people read it: sentences and tables, the same in the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tau2_fleet.compare.changes import Change
from tau2_fleet.compare.comparison import METHODS, Comparison, Flip
from tau2_fleet.compare.difference_rows import DifferenceRow
from tau2_fleet.compare.gate import Decision, points
from tau2_fleet.compare.sides import ComparedSide
from tau2_fleet.evaluation.paired import Interval
from tau2_fleet.evaluation.proportions import Estimate
from tau2_fleet.report.sentences import counted


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table, perhaps with a link."""

    text: str
    href: str | None = None


@dataclass(frozen=True, slots=True)
class TableSection:
    """A table under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    words: int = 1
    """Columns at the left that hold words; the others hold numbers."""


@dataclass(frozen=True, slots=True)
class Document:
    """One comparison."""

    title: str
    lead: tuple[str, ...]
    """What matters, in sentences."""
    sections: tuple[TableSection, ...]
    notes: tuple[str, ...]
    methods: str
    chart: tuple[DifferenceRow, ...]
    """Differences that are drawn."""
    figures: dict[str, Any] | None = None
    """Ready for JSON, where there is no `Comparison` that has them."""


def document(comparison: Comparison, decisions: Sequence[Decision] = ()) -> Document:
    """All of a comparison for people."""
    return Document(
        title=_title(comparison),
        lead=(*(decision.line for decision in decisions), *_lead(comparison)),
        sections=tuple(section for section in _sections(comparison) if section.rows),
        notes=comparison.notes,
        methods=METHODS,
        chart=(*comparison.domains, comparison.overall),
    )


def _title(comparison: Comparison) -> str:
    """By models; by runs where both have the same."""
    sides = (comparison.candidate, comparison.baseline)
    first, second = (side.label for side in sides)
    if first == second:
        first, second = (", ".join(source.name for source in side.sources) for side in sides)
    return f"{first} against {second}"


def _lead(comparison: Comparison) -> Iterator[str]:
    row = comparison.overall
    answer = "no difference is shown"
    if row.interval is None:
        answer = "a single task says nothing of others"
    elif row.p is not None and row.p <= 0.05:
        answer = "the candidate is better" if row.difference > 0 else "the candidate is worse"
    yield (
        f"pass^1 went from {row.baseline.value:.3f} to {row.candidate.value:.3f}: {points(row.difference)}"
        f"{_of(row.interval, ' [', '] on tasks like these')}{_of(row.these_tasks, ', [', '] on these very tasks')}"
        f"{'' if row.p is None else f', p = {_p(row.p)}'}; {answer}."
    )
    infrastructure = comparison.infrastructure
    if sum(infrastructure.failures):
        excluded = infrastructure.excluded
        without = "nothing is left without them" if excluded is None else f"{points(excluded.difference)} without them"
        yield (
            f"Infrastructure failures, which count as failures: {infrastructure.failures[0]} in the baseline, "
            f"{infrastructure.failures[1]} in the candidate; {without}; whatever they would have come to, the "
            f"difference is between {points(infrastructure.bounds.low)} and {points(infrastructure.bounds.high)}."
        )
        if infrastructure.thinned:
            verb = "has" if len(infrastructure.thinned) == 1 else "have"
            told = counted(len(infrastructure.thinned), "task")
            yield f"Without them {told} {verb} fewer trials: {_some(infrastructure.thinned)}."
        yield from _emptied(infrastructure.emptied)
    customer = comparison.without_customer
    if customer is not None:
        found = "nothing is left" if customer.row is None else points(customer.row.difference)
        interval = "" if customer.row is None else _of(customer.row.interval, " [", "] on tasks like these")
        yield (
            f"Without the {counted(customer.left_out[0], 'simulation')} of the baseline and the {customer.left_out[1]} "
            f"of the candidate in which the customer erred: {found}{interval}."
        )
        yield from _emptied(customer.emptied)


def _emptied(tasks: Sequence[str]) -> Iterator[str]:
    if tasks:
        verb = "is" if len(tasks) == 1 else "are"
        yield f"Without them {counted(len(tasks), 'task')} {verb} left out: {_some(tasks)}."


def _sections(comparison: Comparison) -> Iterator[TableSection]:
    yield TableSection(
        "Sides",
        ("side", "model", "runs", "benchmark", "tasks", "simulations", "trials a task", "pass^1"),
        tuple(
            _side(side, comparison.tasks, estimate)
            for side, estimate in (
                (comparison.baseline, comparison.overall.baseline),
                (comparison.candidate, comparison.overall.candidate),
            )
        ),
        words=4,
    )
    rows = [*comparison.domains, *([comparison.mean_of_domains] if comparison.mean_of_domains else [])]
    yield TableSection(
        "Difference of pass^1",
        ("", "tasks", "baseline", "candidate", "Δ", "95% on tasks like these", "95% on these very tasks", "p"),
        tuple(_difference(row) for row in (*rows, comparison.overall)),
        "p and intervals of domains are adjusted by Holm's procedure; those of the overall difference are not."
        if comparison.domains
        else "",
    )
    if comparison.infrastructure.excluded is not None:
        yield TableSection(
            "Without infrastructure failures",
            ("", "tasks", "baseline", "candidate", "Δ", "95% on tasks like these", "95% on these very tasks", "p"),
            (_difference(comparison.infrastructure.excluded),),
        )
    if comparison.without_customer is not None and comparison.without_customer.row is not None:
        yield TableSection(
            "Without simulations in which the customer erred, as reviewed",
            ("", "tasks", "baseline", "candidate", "Δ", "95% on tasks like these", "95% on these very tasks", "p"),
            (_difference(comparison.without_customer.row),),
        )
    yield TableSection(
        "All k trials passed",
        ("", "tasks", "baseline", "candidate", "Δ", "95% on tasks like these"),
        tuple(_difference(row)[:6] for row in comparison.pass_k),
    )
    yield TableSection(
        "Why reward was lost, by primary cause",
        ("cause", "baseline", "candidate", "Δ", "95% interval"),
        tuple(_cause(change) for change in comparison.causes),
        "Shares of simulations.",
    )
    yield TableSection(
        "What changed in a simulation",
        ("mean over tasks", "baseline", "candidate", "Δ", "95% interval", "p"),
        tuple(_figure(change) for change in comparison.figures),
        "Not adjusted for their number.",
    )
    for title, flips in (("Tasks that went worse", comparison.worse), ("Tasks that went better", comparison.better)):
        yield TableSection(
            f"{title}: {len(flips)}",
            ("task", "baseline", "candidate", "Δ"),
            tuple(_flip(flip) for flip in flips),
        )


def _side(side: ComparedSide, tasks: Sequence[str], estimate: Estimate) -> tuple[Cell, ...]:
    counts = sorted({len(side.trials[task]) for task in tasks})
    trials = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    runs = ", ".join(source.name for source in side.sources)
    simulations = sum(len(side.trials[task]) for task in tasks)
    benchmark = str(side.sources[0].benchmark["benchmark.name"])
    texts = (side.name, side.label, runs, benchmark, str(len(tasks)), str(simulations), trials, share(estimate))
    return tuple(map(Cell, texts))


def _difference(row: DifferenceRow) -> tuple[Cell, ...]:
    level = f" ({1 - row.level:.1%})" if abs(row.level - 0.05) > 1e-9 and row.interval is not None else ""
    return tuple(
        map(
            Cell,
            (
                row.name,
                str(row.tasks),
                share(row.baseline),
                share(row.candidate),
                points(row.difference),
                _of(row.interval, "[", f"]{level}") or "-",
                _of(row.these_tasks, "[", "]") or "-",
                "-" if row.p is None else _p(row.p),
            ),
        )
    )


def _cause(change: Change) -> tuple[Cell, ...]:
    texts = (change.words, f"{change.baseline:.1%}", f"{change.candidate:.1%}", points(change.difference))
    return tuple(map(Cell, (*texts, _of(change.interval, "[", "]") or "-")))


def _figure(change: Change) -> tuple[Cell, ...]:
    interval = change.interval
    between = "-" if interval is None else f"[{_signed(interval.low)}, {_signed(interval.high)}]"
    texts = (change.words, _number(change.baseline), _number(change.candidate), _signed(change.difference), between)
    return tuple(map(Cell, (*texts, _p(change.p))))


def _flip(flip: Flip) -> tuple[Cell, ...]:
    return (
        Cell(flip.task),
        Cell(f"{flip.baseline[0]}/{flip.baseline[1]}", flip.links[0]),
        Cell(f"{flip.candidate[0]}/{flip.candidate[1]}", flip.links[1]),
        Cell(points(flip.difference)),
    )


def share(estimate: Estimate) -> str:
    """`0.512 [0.45, 0.57]`."""
    return str(estimate)


def _of(interval: Interval | None, opening: str, closing: str) -> str:
    return "" if interval is None else f"{opening}{100 * interval.low:+.1f}, {100 * interval.high:+.1f}{closing}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
