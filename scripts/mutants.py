"""`make mutants`: changes a random sample of lines, one at a time, and reports which changes no test notices.

First all tests run once, noting which of them reach which line (`scripts.reach`). Then some lines of each room are
drawn from a seed. Each is changed in a copy of the checkout, and the tests that reach it run there, the quickest first,
then those of its room, until one fails. The report lists the survivors: either a test is missing, or the line says
nothing.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.reach import NOTES, Reach, measure

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src", "tau2_fleet")
REPORT = ROOT / "benchmarks" / "mutants.md"
_LEFT_OUT = ("vllm", "browser", "cluster")
"""Tests that need an environment of their own."""
_AT_ONCE = 40
"""Test functions that are tried in one process; the quickest are the first."""
_COPIED = ("benchmarks", "conf", "data", "docs", "scripts", "src", "tests")
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


def mutants_of(path: Path, source: str) -> Iterator[Mutant]:
    """Every change that this program knows to make in a file; those of annotations and docstrings are left out."""
    for node in _told(ast.parse(source)):
        text = _changed(node)
        line, end_line = getattr(node, "lineno", 0), getattr(node, "end_lineno", -1)
        if text is not None and line == end_line:
            yield Mutant(path, line, node.col_offset, node.end_col_offset, text)  # type: ignore[attr-defined]


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
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


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
            return str(value + 1)
        case ast.Expr(value=ast.Call() | ast.Await()):
            return "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            return "return None"
    return None


def sample(room: str, count: int, seed: int) -> list[Mutant]:
    """The mutants of a room that a seed draws, no two on one line."""
    found: dict[tuple[Path, int], list[Mutant]] = {}
    for path in sorted((ROOT / PACKAGE / room).rglob("*.py")):
        relative = path.relative_to(ROOT)
        for mutant in mutants_of(relative, path.read_text(encoding="utf-8")):
            found.setdefault((relative, mutant.line), []).append(mutant)
    chance = random.Random(f"{seed} {room}")
    places = chance.sample(sorted(found), min(count, len(found)))
    return [chance.choice(found[place]) for place in sorted(places)]


def is_caught(mutant: Mutant, copy: Path, tests: Sequence[Sequence[str]], limit_s: float) -> bool:
    """Whether a test of one of these groups fails, or hangs, with the change; the copy is as before afterwards."""
    file = copy / mutant.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.applied(source), encoding="utf-8")
    try:
        return not all(passes(copy, group, limit_s) for group in tests)
    finally:
        file.write_text(source, encoding="utf-8")


def groups(mutant: Mutant, room: str, reach: Reach) -> list[list[str]]:
    """What to run for a change: tests that reach its line, then all of its room, which may reach it in a process."""
    reaching = reach.tests(mutant.path, mutant.line)
    own = [test for test in reaching if test.startswith(f"tests/{room}/")]
    ordered = [*own, *(test for test in reaching if test not in set(own))]
    return [ordered[at : at + _AT_ONCE] for at in range(0, len(ordered), _AT_ONCE)] + [[f"tests/{room}"]]


def passes(copy: Path, tests: Sequence[str], limit_s: float) -> bool:
    """Whether the tests pass in the copy, within the time."""
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not alone", *tests]
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(limit_s) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> int:
    """Sample, try, report; status 3 where fewer than nine in ten were caught."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n\n")[1])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=5, help="changed lines a room")
    parser.add_argument("--limit-s", type=float, default=600, help="a longer run of a room's tests counts as a failure")
    parser.add_argument(
        "--own-tests",
        action="store_true",
        help="run first only the tests of the chosen rooms: minutes, but blind to what other rooms' tests notice",
    )
    parser.add_argument("rooms", nargs="*", help="default: all with tests of their own")
    parser.add_argument("--notes", type=Path, help="keep the notes of the first run here, and use those that are there")
    options = parser.parse_args()
    rooms = options.rooms or [
        path.name
        for path in sorted((ROOT / "tests").iterdir())
        if (ROOT / PACKAGE / path.name / "__init__.py").exists()
    ]
    begun, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy, notes = Path(folder, "copy"), options.notes or Path(folder, "notes")
        if not (notes / NOTES).exists():
            own = [f"tests/{room}" for room in rooms]
            measure(ROOT, notes, own if options.own_tests else [f"--ignore=tests/{name}" for name in _LEFT_OUT])
        reach = Reach(notes, ROOT)
        for name in _COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy2(path, copy)
        shutil.copy2(ROOT / "Makefile", copy)
        for room in rooms:
            if not passes(copy, [f"tests/{room}"], options.limit_s):
                print(f"{room}: its tests fail without any change; left out", flush=True)
                continue
            for mutant in sample(room, options.each, options.seed):
                caught = is_caught(mutant, copy, groups(mutant, room, reach), options.limit_s)
                print(f"{room}: {mutant.path}:{mutant.line} {'caught' if caught else 'SURVIVED'}", flush=True)
                results.append((room, mutant, caught))
    tried = "tests of the room alone" if options.own_tests else "all tests that reach a line"
    REPORT.write_text(report(results, options.seed, time.monotonic() - begun, tried), encoding="utf-8")
    noticed = sum(result[2] for result in results)
    print(f"{noticed} of {len(results)} caught; {REPORT.relative_to(ROOT)} lists the others")
    return 0 if noticed >= 0.9 * len(results) else 3


def report(results: Sequence[tuple[str, Mutant, bool]], seed: int, took_s: float, tried: str) -> str:
    """The page that is committed; `tried` says with which tests."""
    caught = sum(result[2] for result in results)
    lines = [
        "# Mutants",
        "",
        "Lines changed at random, one at a time: did a test notice? Written by `make mutants`.",
        f"Seed {seed}, {len(results)} changes, {caught} caught, {took_s / 60:.0f} minutes, {tried}. Aim: nine in ten.",
        "",
        "| room | changed | caught |",
        "|---|---|---|",
    ]
    for room in dict.fromkeys(room for room, _, _ in results):
        own = [result for result in results if result[0] == room]
        lines.append(f"| {room} | {len(own)} | {sum(result[2] for result in own)} |")
    lines += ["", "Survivors:", ""]
    for _, mutant, was_caught in results:
        if not was_caught:
            source = (ROOT / mutant.path).read_text(encoding="utf-8")
            old, new = (text.splitlines()[mutant.line - 1].strip() for text in (source, mutant.applied(source)))
            lines.append(f"- `{mutant.path}:{mutant.line}`\n  - was `{old}`\n  - now `{new}`")
    if caught == len(results):
        lines.append("none.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
