"""CSV files for spreadsheets and data frames; `simulations.csv` and the tables of `analyze` are written here."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tau2_fleet.display.formats import csv_cell
from tau2_fleet.record.atomic import replaced


@contextmanager
def csv_file(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Iterable[Any]], None]]:
    """A file while it is written, a row at a time: UTF-8 with a header, an empty cell for what is missing.

    No cell is a formula for a spreadsheet. The file takes its place when the block ends well.

    Raises:
        UserError: it cannot be written.
    """
    with replaced(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        try:
            yield lambda row: writer.writerow([_cell(value) for value in row])
        finally:
            text.detach()


def _cell(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value
