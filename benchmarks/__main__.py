"""`python -m benchmarks [--quick | --guard | --report] [NAME …]`: measure, show the table, and keep or check it.

A full run writes `benchmarks/table.json`, the plots and `benchmarks/README.md`; a full run of some names replaces
their part of them. `--quick` and `--guard` write nothing; `--guard` fails when a guarded ratio falls by more than a
third below the table's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, goal_of, number
from benchmarks.table import TABLE, Measured, about, read_table, write_table

ALLOWED_LOSS = 1 / 3

NAMES = (
    "start",
    "parts",
    "environment",
    "custom",
    "requests",
    "batch",
    "store",
    "profiling",
    "long",
    "busy",
    "concurrency",
    "scale",
    "hosts",
    "pages",
    "comparing",
    "decisions",
    "exports",
    "reading",
    "merging",
    "reviewing",
    "seats",
    "control",
    "simulated",
    "vllm",
)
"""Modules of this package with a function `rows(*, quick: bool) -> list[Row]`."""

GUARDED = ("parts", "environment", "requests", "concurrency")
"""The cheap and steady ones that the guard runs."""
_MEASUREMENTS = 3
"""At most, before the guard believes that something is lost."""

FULL_ONLY = ("vllm",)
"""Not part of a quick run unless they are named."""


def show(rows: list[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what", overflow="fold")
    for heading in ("ours", "other", "unit", "ratio", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("beside", overflow="fold")
    for row in rows:
        ratio = "-" if row.ratio is None else f"×{number(row.ratio)}"
        style = "yellow" if row.met is False else ""
        theirs = "-" if row.theirs is None else number(row.theirs)
        table.add_row(
            row.name,
            number(row.ours),
            theirs,
            row.unit,
            ratio,
            goal_of(row),
            "" if row.theirs is None else row.beside,
            style=style,
        )
    console.print(table)


def check(rows: list[Row], known: Mapping[str, float], console: Console) -> bool:
    """Whether every guarded ratio keeps at least two thirds of the committed one."""
    compared = [row for row in rows if row.guarded and row.ratio is not None and row.name in known]
    lost = [row for row in compared if _lost(row, known)]
    for row in lost:
        least = known[row.name] * (1 - ALLOWED_LOSS)
        console.print(f"[red]lost[/]: {row.name}: ×{row.ratio:.1f}, at least ×{least:.1f} is expected")
    if compared:
        told = "some are lost" if lost else "all hold"
        console.print(f"\n{len(compared)} ratios compared with {TABLE.name}: {told}")
    else:
        console.print(f"[red]nothing compared[/]: {TABLE.name} has none of these rows; make it with make bench")
    return bool(compared) and not lost


def _lost(row: Row, known: Mapping[str, float]) -> bool:
    ratio = row.ratio if row.guarded else None
    return ratio is not None and row.name in known and ratio < known[row.name] * (1 - ALLOWED_LOSS)


def guard(names: Sequence[str], known: Mapping[str, float], console: Console) -> bool:
    """Measure and check; what seems lost is measured again, and the best of the measurements counts.

    Others use the machine too: a ratio is lost only if it is in every one of them.
    """
    rows: list[Row] = []
    for name in names:
        best: dict[str, Row] = {}
        for _ in range(_MEASUREMENTS):
            for row in _measure(name, True, console).rows:
                if row.name not in best or (row.ratio or 0) > (best[row.name].ratio or 0):
                    best[row.name] = row
            if not any(_lost(row, known) for row in best.values()):
                break
        rows += best.values()
    return check(rows, known, console)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="small samples")
    kind.add_argument(
        "--guard", action="store_true", help="small samples of the cheap ones, checked against table.json"
    )
    kind.add_argument("--report", action="store_true", help="README.md and plots again, from table.json")
    parser.add_argument("names", nargs="*", help="some of the benchmarks only")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = read_table()
    if not args.report:
        if args.guard:
            known = {row.name: row.ratio for found in table.values() for row in found.rows if row.ratio}
            return 0 if guard(args.names or GUARDED, known, console) else 1
        names = args.names or NAMES
        left_out = [name for name in FULL_ONLY if args.quick and name not in args.names]
        for name in names:
            if name in left_out:
                console.print(f"\n[bold]{name}[/] is left out of a quick run; by name: python -m benchmarks {name}")
                continue
            measured = _measure(name, args.quick, console)
            if not args.quick:
                table = {**read_table(), name: measured}  # another run may have written meanwhile
                write_table({known: table[known] for known in NAMES if known in table})
        if args.quick:
            return 0
        table = read_table()
    from benchmarks.report import write_report

    for path in write_report(table):
        console.print(f"written: {path}")
    return 0


def _measure(name: str, quick: bool, console: Console) -> Measured:
    load, begun = os.getloadavg()[0], time.perf_counter()
    rows: list[Row] = import_module(f"benchmarks.{name}").rows(quick=quick)
    seconds = time.perf_counter() - begun
    console.print(f"\n[bold]{name}[/] ({seconds:.0f} s)")
    show(rows, console)
    return Measured(rows, about(seconds, load))


if __name__ == "__main__":
    sys.exit(main())
