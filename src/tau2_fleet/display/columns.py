"""Tables of tens of thousands of lines, for which rich takes seconds and gigabytes: one line of text a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    heading = [cell(title) for title in titles]
    right = [title in to_the_right.split() for title in titles]
    widths = [max(_length(row[column]) for row in (heading, *rows)) for column in range(len(titles))]
    return "\n".join(_lines([heading, *rows], widths, right, colours))


def _lines(
    rows: Sequence[Sequence[Cell]], widths: Sequence[int], right: Sequence[bool], colours: bool
) -> Iterator[str]:
    for row in rows:
        cells = []
        for content, width, to_the_right in zip(row, widths, right, strict=True):
            space = " " * (width - _length(content))
            text = "  ".join(_coloured(part, colour) if colours else part for part, colour in content)
            cells.append(space + text if to_the_right else text + space)
        yield "  ".join(cells).rstrip()


def _length(content: Cell) -> int:
    return sum(len(text) for text, _ in content) + 2 * (len(content) - 1)


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colour else text
