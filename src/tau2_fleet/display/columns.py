"""Tables of tens of thousands of lines, for which rich takes seconds and gigabytes: one line of text a row."""

from __future__ import annotations

from collections.abc import Sequence

Cell = tuple[tuple[str, str], ...]
"""Pieces of text, each with its colour (`red`, `green`, `dim`, or none), which two spaces part."""
_CODES = {"red": "31", "green": "32", "dim": "2"}


def cell(text: str, colour: str = "") -> Cell:
    """One piece of text, already safe for a terminal."""
    return ((text, colour),)


def in_columns(titles: Sequence[str], rows: Sequence[Sequence[Cell]], to_the_right: str, colours: bool) -> str:
    """The table as text, without a line break at its end.

    Args:
        to_the_right: the titles whose columns stand to the right, with blanks between them.
        colours: False: plain text.
    """
    right = to_the_right.split()
    cells = zip(*rows, strict=True) if rows else ((),) * len(titles)
    columns = [
        _column((cell(title), *column), title in right, colours) for title, column in zip(titles, cells, strict=True)
    ]
    return "\n".join(["  ".join(row).rstrip() for row in zip(*columns, strict=True)])


def _column(cells: Sequence[Cell], to_the_right: bool, colours: bool) -> list[str]:
    """The texts of one column, all as long as they look."""
    plain = ["  ".join([text for text, _ in content]) for content in cells]
    width = max(map(len, plain))
    if not colours:
        return [text.rjust(width) if to_the_right else text.ljust(width) for text in plain]
    spaces = [" " * (width - len(text)) for text in plain]
    drawn = ["  ".join([_coloured(*part) for part in content]) for content in cells]
    return [space + text if to_the_right else text + space for text, space in zip(drawn, spaces, strict=True)]


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colour else text
