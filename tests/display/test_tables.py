"""Tables as text for people and for other programs, and what the two consoles let through."""

from __future__ import annotations

import io

import pytest
from rich.text import Text

from tau2_fleet.display.columns import cell, in_columns
from tau2_fleet.display.console import SteadyConsole, complain, err, neutralise, out, print_whole, tell, wide
from tau2_fleet.display.formats import TableFormat, csv_cell, table_text


def test_columns_are_as_wide_as_their_widest_cell_and_colours_take_no_room() -> None:
    rows = [[cell("a"), (("12", "red"), ("x", "dim")), cell("9")], [cell("bcd"), cell("3"), cell("")]]
    plain = in_columns(["name", "n", "z"], rows, "n", colours=False)
    assert plain.splitlines() == ["name      n  z", "a     12  x  9", "bcd       3"]
    coloured = in_columns(["name", "n", "z"], rows, "n", colours=True)
    assert coloured.splitlines()[1] == "a     \x1b[31m12\x1b[0m  \x1b[2mx\x1b[0m  9"
    assert coloured.splitlines()[2] == plain.splitlines()[2]
    assert in_columns(["name", "n"], [], "n", colours=False) == "name  n"


def test_tables_for_other_programs_mean_what_they_show() -> None:
    columns, rows = ["a|b", "50%"], [["x\\y", "_1"]]
    assert table_text(columns, rows, TableFormat.MARKDOWN) == "| a\\|b | 50% |\n| --- | --- |\n| x\\\\y | _1 |"
    assert table_text(columns, rows, TableFormat.LATEX).splitlines() == [
        r"\begin{tabular}{ll}", r"\toprule", r"a|b & 50\% \\", r"\midrule", r"x\textbackslash{}y & \_1 \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert table_text(columns, [["=1", 'say "it"']], TableFormat.CSV) == 'a|b,50%\n\'=1,"say ""it"""'


@pytest.mark.parametrize(
    ("text", "kept"),
    [("-1.5", "-1.5"), ("+3", "+3"), ("-x", "'-x"), ("@a", "'@a"), ("a=b", "a=b"), ("a\nb\tc", "a b c")],
)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(text: str, kept: str) -> None:
    assert csv_cell(text) == kept


def test_what_steers_a_terminal_is_shown_and_lines_stay_where_they_may() -> None:
    assert neutralise("a\x1b\n\u202e") == "a\\x1b\\n\\u202e"
    assert neutralise("a\x1b\n\tb", keep_lines=True) == "a\\x1b\n\tb"


def test_a_file_gets_whole_lines_and_a_terminal_its_own_width(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word 12 " * 100
    out.print(long)
    wide.print(long)
    print_whole(long)
    err.print(long)
    complain(f"[bold]{long}\x1b")
    tell("told\nhere", "note: ", "yellow")
    shown = capsys.readouterr()
    assert shown.out == f"{long}\n" * 3
    assert shown.err == f"{long}\nerror: [bold]{long}\\x1b\nnote: told\nhere\n"
    file = SteadyConsole(file=io.StringIO())
    assert file.size.width >= 400
    file.size = (500, 20)  # type: ignore[assignment]
    assert file.size == (500, 20)
    terminal = SteadyConsole(file=io.StringIO(), force_terminal=True, width=90)
    assert terminal.size.width == 90
    other = io.StringIO()
    terminal.file = other
    terminal.print(Text("there"))
    assert other.getvalue() == "there\n"
