"""`python -m benchmarks [--quick | --guard] [NAME …]`: measure, show the table, and keep or check it.

A full run writes `benchmarks/table.json`, which `--guard` compares with: it fails when a guarded ratio
falls by more than a third.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row

TABLE = Path(__file__).with_name("table.json")
ALLOWED_LOSS = 1 / 3

NAMES = ("environment", "batch", "requests")
"""Modules of this package with a function `rows(*, quick: bool) -> list[Row]`."""

GUARDED = ("environment", "requests")
"""The cheap and steady ones that the guard runs."""


def show(rows: list[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what", overflow="fold")
    for heading in ("ours", "other", "unit", "ratio", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("beside", overflow="fold")
    for row in rows:
        ratio = "-" if row.ratio is None else f"×{row.ratio:,.1f}"
        goal = "" if row.goal is None else f"×{row.goal:,.1f}"
        missed = row.goal is not None and row.ratio is not None and row.ratio < row.goal
        theirs = "-" if row.theirs is None else _number(row.theirs)
        ratio = f"[yellow]{ratio}[/]" if missed else ratio
        table.add_row(
            row.name, _number(row.ours), theirs, row.unit, ratio, goal, "" if row.theirs is None else row.beside
        )
    console.print(table)


def check(rows: list[Row], known: Mapping[str, float], console: Console) -> bool:
    """Whether every guarded ratio keeps at least two thirds of the committed one."""
    held = True
    compared = 0
    for row in rows:
        if not row.guarded or row.ratio is None or row.name not in known:
            continue
        compared += 1
        least = known[row.name] * (1 - ALLOWED_LOSS)
        if row.ratio < least:
            held = False
            console.print(f"[red]lost[/]: {row.name}: ×{row.ratio:.1f}, at least ×{least:.1f} is expected")
    if not compared:
        console.print(f"[red]nothing compared[/]: {TABLE.name} has none of these rows; make it with make bench")
    return held and compared > 0


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="small samples")
    kind.add_argument(
        "--guard", action="store_true", help="small samples of the cheap ones, checked against table.json"
    )
    parser.add_argument("names", nargs="*", help="some of the benchmarks only")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    names = args.names or (GUARDED if args.guard else NAMES)
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows: list[Row] = []
    for name in names:
        begun = time.perf_counter()
        found: list[Row] = import_module(f"benchmarks.{name}").rows(quick=args.quick or args.guard)
        console.print(f"\n[bold]{name}[/] ({time.perf_counter() - begun:.0f} s)")
        show(found, console)
        rows += found
    if args.guard:
        committed = {row["name"]: row["ratio"] for row in json.loads(TABLE.read_text())["rows"]}
        return 0 if check(rows, committed, console) else 1
    if not args.quick and not args.names:
        _save(rows)
        console.print(f"\nwritten: {TABLE}")
    return 0


def _save(rows: list[Row]) -> None:
    about = {"date": date.today().isoformat(), "python": platform.python_version(), "machine": platform.machine()}
    table = [{**asdict(row), "ratio": row.ratio} for row in rows]
    TABLE.write_text(json.dumps({**about, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
