"""The changes that `scripts.mutants` makes: of one line each, found in the syntax tree, drawn from a seed."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path("src", "tau2_fleet")
_OPPOSITES: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
}
_LOGS = ("log", "logger", "logging")
_SMALL = 10
"""Numbers below it are changed by one; of larger ones, sizes and units mostly, one more or less is no mistake."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one line."""

    path: Path
    """In the checkout."""
    line: int
    column: int
    end: int
    text: str
    """What stands in place of the columns from `column` to `end`, in bytes as `ast` counts them."""

    def applied(self, source: str) -> str:
        """The whole file with the change."""
        lines = source.splitlines(keepends=True)
        old = lines[self.line - 1].encode()
        lines[self.line - 1] = (old[: self.column] + self.text.encode() + old[self.end :]).decode()
        return "".join(lines)

    def lines(self, source: str) -> tuple[str, str]:
        """The line as it is and as it becomes, without indentation."""
        old, new = (text.splitlines()[self.line - 1].strip() for text in (source, self.applied(source)))
        return old, new


def mutants_of(path: Path, source: str) -> Iterator[Mutant]:
    """Every change that this program knows to make in a file.

    What does nothing when the program runs, or is not its work, is left out: annotations, docstrings, asserts (they
    are for type checkers), calls of a log, texts.
    """
    for node in _told(ast.parse(source)):
        text = _changed(node)
        line, end_line = getattr(node, "lineno", 0), getattr(node, "end_lineno", -1)
        if text is not None and line == end_line:
            yield Mutant(path, line, node.col_offset, node.end_col_offset, text)  # type: ignore[attr-defined]


def sample(root: Path, room: str, count: int, seed: int) -> list[Mutant]:
    """The mutants of a room that a seed draws, no two on one line."""
    found: dict[tuple[Path, int], list[Mutant]] = {}
    for path in sorted((root / PACKAGE / room).rglob("*.py")):
        relative = path.relative_to(root)
        for mutant in mutants_of(relative, path.read_text(encoding="utf-8")):
            found.setdefault((relative, mutant.line), []).append(mutant)
    chance = random.Random(f"{seed} {room}")
    places = chance.sample(sorted(found), min(count, len(found)))
    return [chance.choice(found[place]) for place in sorted(places)]


def _told(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something when the program runs."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _says_nothing(child):
                yield child
                yield from _told(child)


def _says_nothing(node: ast.AST) -> bool:
    match node:
        case ast.If(test=test):
            return "TYPE_CHECKING" in ast.unparse(test)
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in _LOGS
        case ast.keyword(arg="strict", value=ast.Constant(value=True)):
            return True  # of zip: an assertion, which lists of one length never meet
    return False


def _changed(node: ast.AST) -> str | None:
    """Other code in a node's place; None where none is known."""
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in _OPPOSITES:
            opposite = _OPPOSITES[type(operator)]()
            return ast.unparse(ast.Compare(left, [opposite], [right]))  # type: ignore[list-item]
        case ast.BoolOp(op=operator, values=values):
            return f"({ast.unparse(ast.BoolOp(_OPPOSITES[type(operator)](), values))})"  # type: ignore[arg-type]
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPPOSITES:
            changed = ast.BinOp(left, _OPPOSITES[type(operator)](), right)  # type: ignore[arg-type]
            return f"({ast.unparse(changed)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            return str(not value)
        case ast.Constant(value=int(value)):
            return str(value + 1) if value < _SMALL else "1"
        case ast.Expr(value=ast.Call() | ast.Await()):
            return "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            return "return None"
    return None
