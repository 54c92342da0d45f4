"""The tables of `tau2-fleet analyze`: for the terminal, and as CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tau2_fleet.analysis.csv_files import csv_file
from tau2_fleet.analysis.profile_reader import PARTS, Profile
from tau2_fleet.analysis.series import Series, SeriesRow, row
from tau2_fleet.display.console import neutralise

_CONTAINERS = ("step_complete", "simulation")
"""Types that contain the others: they have no share of their own."""

_SHOWN = 12
_NAME_LENGTH = 56

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class FigureTable:
    """A table before it is drawn: what the terminal and the CSV file have in common."""

    name: str
    """The CSV file's, without `.csv`."""
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    hidden: frozenset[str] = frozenset()
    """Columns that are in the CSV file only."""


_ROW_COLUMNS = tuple(field.name for field in fields(SeriesRow))
_OF_SEVERAL = frozenset({"sd_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "total_s"})
"""Columns that say nothing beside the mean where each row is about one thing."""


def rows_of(group: dict[str, Series], simulated_ms: float) -> list[SeriesRow]:
    """A group's rows, the largest total first, those that contain others last."""
    made = [row(name, series, None if name in _CONTAINERS else simulated_ms) for name, series in group.items()]
    return sorted(made, key=lambda one: (one.name in _CONTAINERS, -one.total_s))


def all_figures(profile: Profile) -> list[FigureTable]:
    """Every table of an analysis; those without rows are left out."""
    simulated = profile.simulated_ms
    tables = [
        FigureTable(name, title, _ROW_COLUMNS, [tuple(asdict(one).values()) for one in rows_of(group, simulated)])
        for name, title, group in (
            ("by_type", "by type", profile.by_type),
            ("by_model", "by type and model", profile.by_model),
            ("by_replica", "by replica", profile.by_replica),
            ("by_function", "by tool", profile.by_function),
        )
    ]
    tables.append(_conditions(profile))
    tables.append(_tasks(profile))
    tables.append(_slowest(profile))
    tables.append(_split(profile))
    return [table for table in tables if table.rows]


def side_by_side(by_run: Mapping[str, list[FigureTable]]) -> list[FigureTable]:
    """The tables of several runs as one of each kind, a row saying first whose it is; nothing is averaged over runs."""
    merged: dict[str, FigureTable] = {}
    for run, tables in by_run.items():
        for table in tables:
            rows: list[tuple[Cell, ...]] = [(run, *one) for one in table.rows]
            before = merged.get(table.name)
            merged[table.name] = FigureTable(
                name=table.name,
                title=table.title,
                columns=("run", *table.columns),
                rows=rows if before is None else before.rows + rows,
                hidden=table.hidden if before is None else before.hidden & table.hidden,
            )
    return list(merged.values())


def _conditions(profile: Profile) -> FigureTable:
    """What was found in replies, the most frequent first."""
    rows: list[tuple[Cell, ...]] = [(*where, count) for where, count in profile.conditions.most_common()]
    columns = ("role", "condition", "model", "replica", "count")
    return FigureTable("reply_conditions", "replies that were not as they should be", columns, rows)


def _tasks(profile: Profile) -> FigureTable:
    """The figures of the other tables and the mean reward, the slowest task first."""
    figures = [(row(name, task.series, profile.simulated_ms), task.reward) for name, task in profile.tasks.items()]
    figures.sort(key=lambda one: -one[0].mean_ms)
    rows: list[tuple[Cell, ...]] = []
    for one, reward in figures:
        name, trials, *others = asdict(one).values()
        rows.append((name, trials, reward / trials, *others))
    columns = ("task", "trials", "mean_reward", *_ROW_COLUMNS[2:])
    once = all(one.count == 1 for one, _ in figures)
    return FigureTable("by_task", "slowest tasks", columns, rows, hidden=_OF_SEVERAL if once else frozenset())


def _slowest(profile: Profile) -> FigureTable:
    columns = ("type", "what", "simulation", "step", "replica", "duration_ms", "queue_ms", "output_tokens")
    rows: list[tuple[Cell, ...]] = [
        tuple(getattr(call, column) for column in columns) for call in profile.slowest_calls()
    ]
    return FigureTable("slowest_calls", "slowest calls", columns, rows)


def _split(profile: Profile) -> FigureTable:
    domains = list(profile.split_ms.items())
    if len(domains) > 1:
        everything = {part: sum(parts[part] for _, parts in domains) for part in PARTS}
        domains.append(("all", everything))
    rows: list[tuple[Cell, ...]] = []
    for domain, parts in domains:
        total = sum(parts.values())
        shares = (parts[part] / total if total else 0.0 for part in PARTS)
        rows.append((domain, total / 1000, *shares))
    return FigureTable("time_split", "where the time of the simulations went", ("domain", "total_s", *PARTS), rows)


def write_csv(directory: Path, tables: Iterable[FigureTable]) -> list[Path]:
    """One file per table, complete, in plain units; returns their paths."""
    paths = []
    for table in tables:
        path = directory / f"{table.name}.csv"
        with csv_file(path, table.columns) as write:
            for row in table.rows:
                write(row)
        paths.append(path)
    return paths


def cells_of(figures: FigureTable) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as the terminal shows them, every row, for other programs."""
    headings, cells = _for_people(figures)
    return headings, [[cell.plain for cell in one] for one in cells]


def draw(figures: FigureTable) -> Table:
    """The table for the terminal; of long ones the first rows."""
    headings, cells = _for_people(figures)
    table = Table(title=figures.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        numeric = index > 0 and not any(isinstance(value, str) for value in _column(figures, heading))
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True, header_style="dim")
    for one in cells[:_SHOWN]:
        table.add_row(*one)
    if len(cells) > _SHOWN:
        table.caption = Text(f"and {len(cells) - _SHOWN} more in {figures.name}.csv")
        table.caption_justify = "left"
    return table


_HEADINGS = {
    "mean_ms": "mean", "sd_ms": "sd", "p50_ms": "p50", "p90_ms": "p90", "p95_ms": "p95", "p99_ms": "p99",
    "total_s": "total", "input_tokens": "tokens in", "output_tokens": "out", "cached_tokens": "cached",
    "tokens_per_s": "tok/s", "cost_usd": "cost", "duration_ms": "time",
    "queue_ms": "queued", "mean_reward": "reward", "what": "model or tool",
}  # fmt: skip


def _column(figures: FigureTable, heading: str) -> list[Cell]:
    names = [_HEADINGS.get(name, name) for name in figures.columns]
    index = names.index(heading)
    return [one[index] for one in figures.rows]


def _for_people(figures: FigureTable) -> tuple[list[str], list[list[Text]]]:
    """Headings and cells, without columns that say nothing."""
    kept = [
        index
        for index, column in enumerate(figures.columns)
        if column not in figures.hidden and any(one[index] not in (0, None) for one in figures.rows)
    ]
    headings = [_HEADINGS.get(figures.columns[index], figures.columns[index]) for index in kept]
    cells = [[Text(_cell(figures.columns[index], one[index])) for index in kept] for one in figures.rows]
    return headings, cells


def _cell(column: str, value: Cell) -> str:
    if value is None or (value == 0 and column.endswith("_tokens")):
        return ""
    if isinstance(value, str):
        text = neutralise(value)
        return text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 13]}…{text[-12:]}"
    if column.endswith("_ms"):
        return duration(value)
    if column == "total_s":
        return duration(value * 1000)
    if column == "cost_usd":
        return f"${value:,.4f}"
    if column == "share" or column in PARTS:
        return f"{value:.1%}"
    if column == "tokens_per_s":
        return f"{value:,.1f}"
    if column == "mean_reward":
        return f"{value:.2f}"
    return f"{value:,}"


def duration(milliseconds: float) -> str:
    """A duration with three digits that matter: `0.75 ms`, `12.3 s`, `2 h 05 min`."""
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else "1 s"
    seconds = milliseconds / 1000
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def headline(profile: Profile, runs: Sequence[Path]) -> str:
    """What was read, in a line."""
    simulations = sum(len(task.series.durations_ms) for task in profile.tasks.values())
    cost = sum(series.cost_usd for name, series in profile.by_type.items() if name not in _CONTAINERS)
    tokens = sum(series.output_tokens for series in profile.by_type.values())
    rate = tokens / profile.wall_s if profile.wall_s else 0.0
    where = str(runs[0]) if len(runs) == 1 else f"{len(runs)} runs"
    return (
        f"{where}: {simulations:,} simulations in {duration(profile.wall_s * 1000)}, {profile.events:,} events, "
        f"${cost:,.4f}, {tokens:,} output tokens ({rate:,.0f} per second of wall time)"
    )


def meaning_of_share(profile: Profile) -> str:
    """What the tables' `share` is a share of, in a line."""
    at_once = profile.simulated_ms / 1000 / profile.wall_s if profile.wall_s else 0.0
    total = duration(profile.simulated_ms)
    return f"share: of the simulations' summed time, {total}, {at_once:.1f} times the wall time: they run side by side"
