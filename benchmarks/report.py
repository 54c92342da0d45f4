"""`benchmarks/README.md` and its plots, made of `table.json` alone: no figure in them is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.plots import draw
from benchmarks.rows import Row, goal_of, number
from benchmarks.table import Measured

README = Path(__file__).with_name("README.md")
PLOTS = README.parent / "plots"

_INTRODUCTION = """\
# How fast it is

What the program itself costs, beside the τ²-bench package's own runner, on the same work, in the same run. Every
figure is from `table.json`, which `make bench` writes; so is this page (again: `python -m benchmarks --report`).

| to repeat | |
|---|---|
| `make bench` | everything; writes the table, the plots and this page |
| `make bench-quick` | small samples in minutes; writes nothing |
| `make bench-guard` | cheap CPU-time ratios; fails when one is a third worse than in the table |
| `python -m benchmarks NAME …` | some of them, whole, and their part of the table |

CPU time is that of all threads of the process. A ratio says how many times better ours is; ✓ and ✗ say whether what
was aimed at is reached. The first column's names are the rows of `python -m benchmarks`.
"""

_BOUNDS = {
    "batch/": "Where the time goes, without events and with them, is listed under *Where the time goes*; the "
    "benchmark's own tools and its pydantic messages are most of what is left, and the lines of `profile.jsonl`, "
    "`run.log` and `trace.json` are most of what events add; what one event costs in all is `parts/event`.",
    "environment/telecom": "Telecom's database is small, so the package's own environment is cheap there; ours is "
    "bound by the copies of the records that the task's initial actions touch.",
    "scale/": "At this rate the runner's process and the simulated servers share the cores; the runner's own CPU per "
    "request stands in the same table.",
    "requests/1000": "Opening and serving a thousand connections on the same cores that the fixed server needs.",
    "start/": "Imports and reading the domains; the servers start meanwhile.",
    "profiling/": "A line in `run.log` and one on stdout for every event; see `parts/event`.",
    "busy/": "The end of such a run hangs on its few longest conversations, which no routing shortens.",
}
"""What bounds a figure that misses its goal, by the beginning of its name."""


def write_report(table: Mapping[str, Measured]) -> list[Path]:
    """Write the page and the plots; their paths."""
    PLOTS.mkdir(exist_ok=True)
    drawn = draw({name: found.rows for name, found in table.items()}, PLOTS)
    README.write_text("\n".join(_page(table, drawn)).rstrip() + "\n")
    return [README, *drawn.values()]


def _page(table: Mapping[str, Measured], drawn: Mapping[str, Path]) -> Iterator[str]:
    yield _INTRODUCTION
    yield from _missed([row for found in table.values() for row in found.rows])
    for name, found in table.items():
        yield from _section(name, found, drawn.get(name))
    yield from _profiles(table)
    yield "## Measured on\n"
    yield "| | date | took | load before | cores | processor | Python |"
    yield "|---|---|---:|---:|---:|---|---|"
    for name, found in table.items():
        about = found.about
        yield (
            f"| {name} | {about['date']} | {about['seconds']} s | {about['load']} | {about['cores']} "
            f"| {about['processor']} | {about['python']} |"
        )


def _section(name: str, found: Measured, plot: Path | None) -> Iterator[str]:
    about = (import_module(f"benchmarks.{name}").__doc__ or "").strip()
    yield f"## {name}\n"
    yield f"{about}\n"
    if plot is not None:
        yield f"![{name}](plots/{plot.name})\n"
    yield "| what | ours | other | ratio | aim | | beside |"
    yield "|---|---:|---:|---:|---:|---|---|"
    for row in found.rows:
        yield _line(row)
    yield ""


def _line(row: Row) -> str:
    theirs = "" if row.theirs is None else f"{number(row.theirs)} {row.unit}"
    ratio = "" if row.ratio is None else f"×{number(row.ratio)}"
    verdict = {True: "✓", False: "✗", None: ""}[row.met]
    beside = "" if row.theirs is None else row.beside
    return (
        f"| {row.name} | {number(row.ours)} {row.unit} | {theirs} | {ratio} | {goal_of(row)} | {verdict} | {beside} |"
    )


def _missed(rows: Sequence[Row]) -> Iterator[str]:
    missed = [row for row in rows if row.met is False]
    reached = sum(row.met is True for row in rows)
    yield "## What is reached\n"
    if not missed:
        yield f"All {reached} aims.\n"
        return
    yield f"{reached} of {reached + len(missed)} aims. Not reached, and what bounds them:\n"
    yield "| what | ours | other | ratio | aim | | beside |"
    yield "|---|---:|---:|---:|---:|---|---|"
    for row in missed:
        yield _line(row)
    yield ""
    for beginning, bound in _BOUNDS.items():
        if any(row.name.startswith(beginning) for row in missed):
            yield f"- `{beginning}…`: {bound}"
    yield ""


def _profiles(table: Mapping[str, Measured]) -> Iterator[str]:
    """The functions that the batches spend their time in."""
    profiles = [row for found in table.values() for row in found.rows if row.detail.get("profile")]
    if not profiles:
        return
    yield "## Where the time goes\n"
    yield "Shares of the runner's CPU by function, its own time without what it calls (cProfile).\n"
    for row in profiles:
        yield f"`{row.name}`\n"
        yield "```"
        yield from row.detail["profile"]
        yield "```\n"
