"""`--format parquet`: one table in Apache Parquet, with the same schema whatever a run holds."""

from __future__ import annotations

import argparse
from typing import Any

from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.formats.csv import add_table_argument, refuse_nothing
from tau2_fleet.export.tables import RUN, TABLES
from tau2_fleet.record.atomic import replaced
from tau2_fleet.telemetry.secrets import Redactor

_ROWS = 5000
_CHARACTERS = 32 * 2**20
"""Of a row group at most, and a record more: what is held in memory."""


class Parquet:
    """The first column is always `run`; each column keeps its type where all of its cells are missing, too."""

    folder = False

    def add_arguments(self, parser: Arguments) -> None:
        add_table_argument(parser)

    def file_name(self, options: argparse.Namespace) -> str:
        return f"{options.table}.parquet"

    def write(self, export: Export) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        table = TABLES[export.options.table]
        schema = pyarrow.schema([(RUN, types[str]), *((name, types[kind]) for name, kind in table.columns.items())])
        # Records come without keys; in compressed pages there is nothing to find, only something to spoil.
        with replaced(export.path, Redactor()) as file, ParquetWriter(file, schema, compression="zstd") as writer:
            rows: list[list[Any]] = []
            total = held = 0

            def flush() -> None:
                columns = [
                    pyarrow.array(values, type=field.type)
                    for values, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
                rows.clear()

            for run, record in export.records():
                made = run.converted(record, table.rows) or []
                rows += [[run.name, *cells] for cells in made]
                total += len(made)
                held += sum(len(cell) for cells in made for cell in cells if isinstance(cell, str))
                if len(rows) >= _ROWS or held >= _CHARACTERS:
                    flush()
                    held = 0
            if rows:
                flush()
            refuse_nothing(export)
        export.notes.append(f"{total} rows")
