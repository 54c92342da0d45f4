"""`--format csv`: one table, for spreadsheets and data frames; the same columns as the run's own simulations.csv."""

from __future__ import annotations

import argparse

from tau2_fleet.analysis.csv_files import csv_file
from tau2_fleet.errors import UserError
from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.tables import RUN, TABLES


def add_table_argument(parser: Arguments) -> None:
    """`--table`, which `parquet` has too."""
    parser.add_argument(
        "--table",
        choices=list(TABLES),
        default="simulations",
        help="a row per simulation, per model call or per message (default: %(default)s)",
    )


def refuse_nothing(export: Export) -> None:
    """A table without a simulation would be noticed late.

    Raises:
        UserError: the filters let none through, or none can be read.
    """
    if not any(run.exported for run in export.runs):
        raise UserError("no simulation is as asked for, or can be read")


class Csv:
    """Several runs get a first column `run`."""

    folder = False

    def add_arguments(self, parser: Arguments) -> None:
        add_table_argument(parser)

    def file_name(self, options: argparse.Namespace) -> str:
        return f"{options.table}.csv"

    def write(self, export: Export) -> None:
        table = TABLES[export.options.table]
        several = len(export.runs) > 1
        rows = 0
        with csv_file(export.path, [RUN, *table.columns] if several else [*table.columns]) as write:
            for run, record in export.records():
                for cells in run.converted(record, table.rows) or ():
                    rows += 1
                    write([run.name, *cells] if several else cells)
            refuse_nothing(export)
        export.notes.append(f"{rows} rows")
