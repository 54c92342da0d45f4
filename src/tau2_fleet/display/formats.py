"""Tables of text for other programs: Markdown, LaTeX, CSV; `show` and `analyze` print them with `--format`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from enum import StrEnum


class TableFormat(StrEnum):
    """What `--format` takes."""

    TEXT = "text"
    MARKDOWN = "md"
    LATEX = "latex"
    CSV = "csv"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\^{}",
    }
)
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def table_text(columns: Sequence[str], rows: Sequence[Sequence[str]], form: TableFormat) -> str:
    """A table in one of the formats for other programs, without a line break at its end.

    Args:
        rows: cells as people read them, as many in each as there are columns.
    """
    match form:
        case TableFormat.MARKDOWN:
            table = [columns, ["---"] * len(columns), *rows]
            return "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in table)
        case TableFormat.LATEX:
            head = " & ".join(column.translate(_LATEX) for column in columns)
            body = [" & ".join(cell.translate(_LATEX) for cell in row) for row in rows]
            opening = rf"\begin{{tabular}}{{{'l' * len(columns)}}}"
            ended = [rf"{line} \\" for line in body]
            return "\n".join(
                [opening, r"\toprule", rf"{head} \\", r"\midrule", *ended, r"\bottomrule", r"\end{tabular}"]
            )
        case _:
            file = io.StringIO(newline="")
            csv.writer(file, lineterminator="\n").writerows(
                [columns, *([csv_cell(cell) for cell in row] for row in rows)]
            )
            return file.getvalue().rstrip("\n")


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula, on one line."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return f"'{plain}" if plain.startswith(_FORMULA_SIGNS) and not _is_number(plain) else plain


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
