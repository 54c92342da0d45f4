"""`--format parquet`: one table in Apache Parquet, with the same schema whatever a run holds."""

from __future__ import annotations

import argparse
from typing import Any

from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.formats.csv import add_table_argument
from tau2_fleet.export.tables import RUN, TABLES
from tau2_fleet.record.atomic import replaced
from tau2_fleet.telemetry.secrets import Redactor

_ROWS = 5000
"""Of a row group at least: what is held in memory."""


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

            def flush() -> None:
                columns = [
                    pyarrow.array(values, type=field.type)
                    for values, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
                rows.clear()

            for run, record in export.records():
                rows += [[run.name, *cells] for cells in run.converted(record, table.rows) or ()]
                if len(rows) >= _ROWS:
                    flush()
            if rows:
                flush()
