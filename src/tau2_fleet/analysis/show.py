"""`tau2-fleet show DIR`: trajectories of a finished run in the terminal, and why a reward is 0.

Without further arguments it lists the simulations; `--task` shows one in full, `--failed` what reward was lost by.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tau2_fleet.analysis.cause_shares import CauseShares
from tau2_fleet.analysis.explain import gold_checks, gold_checks_of_task
from tau2_fleet.analysis.rows import row_of
from tau2_fleet.analysis.turns import COLUMNS_OF_OVERVIEW, overview_cells, overview_table, simulation
from tau2_fleet.display.console import complain, neutralise, out, print_whole, tell
from tau2_fleet.display.formats import TableFormat, table_text
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.proportions import Estimate, mean_of_tasks
from tau2_fleet.record.overview import Overview, choose, overviews, read_prompts, read_record
from tau2_fleet.record.reading import PROMPT_FILE, Damage
from tau2_fleet.record.task_texts import TaskTexts

_TOLD_ONE_BY_ONE = 4
"""Failed simulations that still fit one screen when each is told by itself."""
_DETAILS = 3
_PIPED = 160
"""Columns where no terminal says how many there are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _show(options)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    return ExitStatus.FINISHED


def _show(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    damage = Damage()
    in_full = options.task is not None or options.prompts
    everything = overviews(directory, damage, deep=in_full or options.failed)
    if damage.count:
        tell(f"{directory}: {damage}, passed over", "note: ", "yellow")
    chosen = choose(everything, options.task, options.trial, options.failed)
    if options.ids:
        if chosen:
            print_whole("\n".join(dict.fromkeys(neutralise(one.name) for one in chosen)))
        return
    if not chosen:
        asked = choose(everything, options.task, options.trial, failed=False)
        if options.trial is not None and not asked and everything:
            last = max(one.trial for one in everything)
            raise UserError(f"no simulation of trial {options.trial}; the last is trial {last}")
        out.print(f"{_counted(asked)} reward 1" if options.failed else "no simulation yet")
        return
    if options.failed and not in_full and len(chosen) > _TOLD_ONE_BY_ONE:
        _show_causes(directory, chosen, len(everything), TableFormat(options.format))
        return
    if (form := TableFormat(options.format)) is not TableFormat.TEXT:
        print_whole(table_text(COLUMNS_OF_OVERVIEW, overview_cells(chosen), form))
        return
    if not in_full and not options.failed:
        print_whole(overview_table(chosen, colours=out.color_system is not None))
        passed = sum(not one.failed for one in chosen)
        out.print(
            f"\n{passed} of {len(chosen)} with reward 1, pass^1 {_pass_rate(chosen)}; "
            f"--task {_example(everything)} shows one{', --failed why' if passed < len(chosen) else ''}",
            markup=False,
        )
        return
    for index, one in enumerate(chosen):
        if index:
            out.print()
        out.print(_told(directory, one, options, in_full), soft_wrap=False, width=None if out.is_terminal else _PIPED)


def _pass_rate(chosen: Sequence[Overview]) -> Estimate:
    """pass^1 with its interval: the mean over tasks."""
    by_task: dict[str, list[float]] = {}
    for one in chosen:
        by_task.setdefault(one.name, []).append(not one.failed)
    return mean_of_tasks([fmean(trials) for trials in by_task.values()], len(chosen))


def _counted(asked: Sequence[Overview]) -> str:
    return "the only simulation has" if len(asked) == 1 else f"all {len(asked)} simulations have"


def _show_causes(directory: Path, chosen: Sequence[Overview], total: int, form: TableFormat) -> None:
    """What the reward was lost by, in one screen."""
    shares = CauseShares()
    for one in chosen:
        shares.add(row_of(read_record(directory, one)), f"{one.name}/{one.trial}")
    rows = [
        [
            share.cause.words,
            f"{share.share:.1%}",
            str(share.simulations),
            "; ".join(f"{detail} ×{count}" if count > 1 else detail for detail, count in share.details),
            neutralise(share.example),
        ]
        for share in shares.shares(details=_DETAILS)
    ]
    columns = ["primary cause", "share", "simulations", "what exactly", "example"]
    if form is not TableFormat.TEXT:
        out.print(neutralise(table_text(columns, rows, form), keep_lines=True), markup=False)
        return
    out.print(f"{len(chosen)} of {total} simulations lost reward, by their primary cause:\n")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in (*columns[:3], "what exactly, most frequent first"):
        table.add_column(name, justify="right" if name in columns[1:3] else "left", no_wrap=name in columns[:3])
    for row in rows:
        table.add_row(*row[:3], Text(neutralise(row[3])))
        table.add_row("", "", "", Text(f"such as {row[4]}", "dim"))
    out.print(table, soft_wrap=False, width=None if out.is_terminal else _PIPED)
    out.print("\n--failed --task ID shows why one failed, --failed --ids lists them")


def _told(directory: Path, one: Overview, options: argparse.Namespace, in_full: bool) -> RenderableType:
    """A simulation, as far as its record can be read."""
    record = read_record(directory, one)
    try:
        prompts = read_prompts(directory, record) if options.prompts else {}
        if options.prompts and not prompts:
            tell(
                f"{directory / PROMPT_FILE} is missing, or holds none of this simulation's prompts", "note: ", "yellow"
            )
        gold = gold_checks(record) or (gold_checks_of_task(record, directory) if in_full else [])
        task = TaskTexts(directory).get(one.name) if in_full else None
        return simulation(record, one, gold, turns=in_full, full=options.full, prompts=prompts, task=task)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return Text(
            neutralise(f"{one.name} trial {one.trial}: the record is damaged ({type(error).__name__}: {error})")
        )


def _example(everything: Sequence[Overview]) -> str:
    """A task to name in the hint: the first failed one, else the first."""
    one = next((one for one in everything if one.failed), everything[0])
    name = one.name if len(one.name) < 40 else one.domain + "/…"
    return name if name.isprintable() else "domain/id"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet show", description="Show simulations of a run: turns, tool calls, why a reward is 0."
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a run directory")
    parser.add_argument("--task", metavar="ID", help="retail/5, 5, or a part of a long id")
    parser.add_argument("--trial", type=int, metavar="N", help="only this repetition, from 0")
    parser.add_argument("--failed", action="store_true", help="only simulations with a reward below 1, and why")
    parser.add_argument("--ids", action="store_true", help="only the tasks, one domain/id a line, for task_ids_file")
    parser.add_argument(
        "--format",
        choices=[form.value for form in TableFormat],
        default=TableFormat.TEXT.value,
        help="of tables: text, md, latex or csv (default: text)",
    )
    parser.add_argument("--prompts", action="store_true", help="also the system prompts as they were sent")
    parser.add_argument("--full", action="store_true", help="tool results and arguments at full length")
    return parser
