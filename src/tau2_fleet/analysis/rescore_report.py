"""What came of each file that `rescore` read, and the tables in which it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tau2_fleet.analysis.score_again import Scored
from tau2_fleet.display.columns import Cell, cell, in_columns
from tau2_fleet.display.console import neutralise, out
from tau2_fleet.evaluation.success import TOLERANCE
from tau2_fleet.evaluation.version_figures import Graded, version_figures

_FIGURES = ("new reward", "changed", "refused", "other outputs")


@dataclass(frozen=True, slots=True)
class RescoredRow:
    """One simulation under each version."""

    scored: tuple[Scored, ...]

    @property
    def told(self) -> bool:
        """Whether there is something to say of it."""
        rewards = [one.new for one in self.scored]
        differ = any(new is not None and abs(new - (rewards[0] or 0.0)) > TOLERANCE for new in rewards)
        return differ or any(one.new is None or one.changed for one in self.scored)


@dataclass(slots=True)
class RescoreReport:
    """One file."""

    path: Path
    versions: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    rows: list[RescoredRow] = field(default_factory=list)
    outside: dict[str, frozenset[str]] = field(default_factory=dict)
    """By version, the endings that its own averages leave out."""
    problem: str | None = None
    """Why nothing, or no more, of it could be read."""
    note: str | None = None
    """What people should know of how it was graded."""

    @property
    def complete(self) -> bool:
        """Whether all of it could be scored under every version."""
        return self.problem is None and all(one.new is not None for row in self.rows for one in row.scored)


def show_rescored(reports: Sequence[RescoreReport]) -> None:
    """What changed and what was refused, then a line for each file; lines are never cut."""
    coloured = out.color_system is not None
    for report in reports:
        told = [row for row in report.rows if row.told]
        if told or report.problem:
            out.out(neutralise(report.path.name), highlight=False)
        if report.problem:
            out.out(f"cannot be read: {neutralise(report.problem)}\n", highlight=False)
        if told:
            heading = ("simulation", "old", *_titles(report), "why")
            rows = [_told(report, row) for row in told]
            out.out(f"{in_columns(heading, rows, '', colours=coloured)}\n", highlight=False)
    versions = list(dict.fromkeys(name for report in reports for name in report.versions))
    several = len(versions) > 1
    heading = ("file", "domain", "simulations", *(() if several else ("graded by",)), "old reward")
    for name in versions:
        heading += tuple(f"{name} {what}" if several else what for what in _FIGURES)
    table = [_line(report, versions) for report in reports]
    out.out(in_columns(heading, table, "", colours=coloured), highlight=False)
    for report in reports:
        if report.note:
            out.out(f"{neutralise(report.path.name)} {neutralise(report.note)}", highlight=False)
        for place, name in enumerate(report.versions):
            scored = [row.scored[place] for row in report.rows]
            own = version_figures(
                [Graded(f"{one.domain}/{one.task}", one.new, one.ending) for one in scored if one.task],
                report.outside[name],
            )
            if own.left_out:
                out.out(
                    f"{neutralise(report.path.name)} by {name}'s own rule, which leaves infrastructure errors out (in "
                    f"the table they count as failures): {own.label}",
                    highlight=False,
                )


def _titles(report: RescoreReport) -> tuple[str, ...]:
    return ("new",) if len(report.versions) == 1 else tuple(report.versions)


def _told(report: RescoreReport, row: RescoredRow) -> list[Cell]:
    first = row.scored[0]
    new = [cell("refused", "red") if one.new is None else cell(_number(one.new)) for one in row.scored]
    details = [
        one.detail if len(row.scored) == 1 else f"{name}: {one.detail}"
        for name, one in zip(report.versions, row.scored, strict=True)
        if one.detail
    ]
    return [cell(neutralise(first.name)), cell(_number(first.old)), *new, cell(neutralise(" | ".join(details)))]


def _line(report: RescoreReport, versions: Sequence[str]) -> list[Cell]:
    old = [row.scored[0].old for row in report.rows if row.scored[0].new is not None]
    known = [reward for reward in old if reward is not None]
    told = [report.path.name, ", ".join(report.domains) or "-", str(len(report.rows))]
    if len(versions) <= 1:
        told.append(", ".join(report.versions) or "-")
    told.append(f"{fmean(known):.3f}" if known else "-")
    for name in versions:
        if name not in report.versions:
            told += ["-"] * len(_FIGURES)
            continue
        scored = [row.scored[report.versions.index(name)] for row in report.rows]
        new = [one.new for one in scored if one.new is not None]
        told.append(f"{fmean(new):.3f}" if new else "-")
        told += [str(sum(one.changed for one in scored)), str(len(scored) - len(new))]
        told.append(str(sum(one.differences for one in scored)))
    return [cell(neutralise(text)) for text in told]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
