"""`make mutants`: changes a random sample of lines, one at a time, and reports which changes no test notices.

First tests run once, noting which of them reach which line (`scripts.reach`). Then some lines of each room are
drawn from a seed. Each is changed in a copy of the checkout, and the tests that reach it run there, the quickest first,
then those of its room that start processes, which may reach it there, until one fails that passes without the change.
The report lists the survivors: either a test is missing, or the change makes no difference. Those of the second kind
stand in benchmarks/mutants.toml with the reason, and are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scripts.changes import PACKAGE, Mutant, sample
from scripts.reach import Reach, measure

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "benchmarks" / "mutants.md"
EQUIVALENT = ROOT / "benchmarks" / "mutants.toml"
_LEFT_OUT = ("vllm", "browser", "cluster")
"""Tests that need an environment of their own."""
_AT_ONCE = 40
"""Test functions that are tried in one process; the quickest are the first."""
_COPIED = ("benchmarks", "conf", "data", "docs", "scripts", "slurm", "src", "tests")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?\.py(?:::\w+)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one change."""

    room: str
    mutant: Mutant
    by: str | None
    """The test that noticed, or a word where no test could end; None where none did."""


@dataclass(slots=True)
class Copy:
    """A copy of the checkout, in which one change after the other is tried."""

    root: Path
    limit_s: float
    most_s: float
    sound: set[str] = field(default_factory=set)
    """Test functions seen to pass without any change."""
    unsound: set[str] = field(default_factory=set)
    """Those seen to fail without any."""

    def make(self) -> None:
        """Copy what tests read."""
        for name in _COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "LICENSE"]:
            if path.is_file():
                shutil.copy2(path, self.root)

    def noticed(self, mutant: Mutant, room: str, reach: Reach) -> str | None:
        """Which test notices a change; the copy is as before afterwards."""
        chosen = order(mutant, room, reach, self.most_s)
        for at in range(0, len(chosen), _AT_ONCE):
            while tests := [test for test in chosen[at : at + _AT_ONCE] if test not in self.unsound]:
                by = self._first_failure(mutant, tests, reach)
                if by is None:
                    break
                if self._passes_unchanged(by, reach):
                    return by
                self.unsound.add(by)
        return None

    def _first_failure(self, mutant: Mutant, tests: Sequence[str], reach: Reach) -> str | None:
        file = self.root / mutant.path
        source = file.read_text(encoding="utf-8")
        file.write_text(mutant.applied(source), encoding="utf-8")
        try:
            by = self._run(tests, reach)
            if by is not None and "::" in by and by not in reach.tests(mutant.path, mutant.line):
                by = self._run([by], reach)  # it may have been a busy machine
            return by
        finally:
            file.write_text(source, encoding="utf-8")

    def _passes_unchanged(self, test: str, reach: Reach) -> bool:
        if "::" not in test:
            return True  # a file that cannot be imported, or no test at all: it could before
        if test not in self.sound and self._run([test], reach) is None:
            self.sound.add(test)
        return test in self.sound

    def _run(self, tests: Sequence[str], reach: Reach) -> str | None:
        """The first of these tests that fails; None where all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-m", "not alone", *tests]
        path = f"{self.root / 'src'}{os.pathsep}{self.root}"
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        try:
            told, _ = process.communicate(timeout=min(self.limit_s, 240 + 10 * sum(map(reach.seconds, tests))))
        except subprocess.TimeoutExpired:
            return "no end"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode in (0, 5):  # 5: all of them are to run alone
            return None
        found = _FAILED.search(told)
        return found[1] if found else "no start"


def order(mutant: Mutant, room: str, reach: Reach, most_s: float) -> list[str]:
    """What to run for a change, as long as all of it takes no longer than `most_s`.

    First tests that reach its line, its room's before others, the quickest before others; then those of its room that
    may reach it in a process.
    """
    rooms = f"tests/{room}/"
    reaching = sorted(reach.tests(mutant.path, mutant.line), key=lambda test: not test.startswith(rooms))
    starting = [test for test in reach.with_processes() if test.startswith(rooms)]
    chosen: list[str] = []
    took_s = 0.0
    for test in dict.fromkeys([*reaching, *starting]):
        took_s += reach.seconds(test)
        if took_s <= most_s or not chosen:
            chosen.append(test)
    return chosen


def try_room(copy: Copy, room: str, options: argparse.Namespace, notes: Path) -> list[Result]:
    """Change lines of a room one after the other; what was tried with these notes already is not tried again."""
    tests = options.tests or [room]
    for folder in tests:
        with options.lock[folder]:
            measure(copy.root, notes / folder, f"tests/{folder}")
    reach = Reach([notes / folder for folder in tests])
    tried = notes / f"tried-{options.seed}-{room}.json"
    known = json.loads(tried.read_text(encoding="utf-8")) if tried.exists() else {}
    results = []
    for mutant in sample(ROOT, room, options.each, options.seed):
        name = f"{mutant.path}:{mutant.line}:{mutant.column} {mutant.text}"
        if known.get(name) is None:
            known[name] = copy.noticed(mutant, room, reach)
            tried.write_text(json.dumps(known), encoding="utf-8")
        results.append(Result(room, mutant, known[name]))
        print(f"{room}: {mutant.path}:{mutant.line} {known[name] or 'SURVIVED'}", flush=True)
    return results


def main() -> int:
    """Sample, try, report; status 3 where fewer than nine in ten were caught."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n\n")[1])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=5, help="changed lines a room")
    parser.add_argument("--limit-s", type=float, default=600, help="tests that run longer count as failed")
    parser.add_argument("--most-s", type=float, default=300, help="of tests for one change, as long as they took alone")
    parser.add_argument("--jobs", type=int, default=1, help="rooms at once")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--own-tests",
        action="store_true",
        help="run only the tests of the line's own room: quicker, but blind to what other rooms' tests notice",
    )
    chosen.add_argument(
        "--tests", type=lambda text: text.split(","), metavar="A,B", help="run only tests of these folders of tests/"
    )
    parser.add_argument("rooms", nargs="*", help="default: all with tests of their own")
    parser.add_argument(
        "--notes", type=Path, help="keep here what tests reach and what was tried, and use what is here and still fits"
    )
    options = parser.parse_args()
    rooms = options.rooms or [
        path.name
        for path in sorted((ROOT / "tests").iterdir())
        if (ROOT / PACKAGE / path.name / "__init__.py").exists()
    ]
    if not options.own_tests and not options.tests:
        options.tests = [path.parent.name for path in sorted((ROOT / "tests").glob("*/test_*.py"))]
        options.tests = [name for name in dict.fromkeys(options.tests) if name not in _LEFT_OUT]
    options.lock = defaultdict(threading.Lock)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(options.jobs):
            copy = Copy(Path(folder, str(number)), options.limit_s, options.most_s)
            copy.make()
            copies.put(copy)
        notes = (options.notes or Path(folder, "notes")).absolute()

        def tried(room: str) -> list[Result]:
            free = copies.get()
            try:
                return try_room(free, room, options, notes)
            finally:
                copies.put(free)

        with ThreadPoolExecutor(options.jobs) as at_once:
            results = [result for found in at_once.map(tried, rooms) for result in found]
    how = f"tests of {', '.join(options.tests)}" if options.tests else "only tests of the line's own room"
    how = f"seed {options.seed}, {(time.monotonic() - begun) / 60:.0f} minutes; {how}, {options.most_s:g} s at most"
    page, is_enough = report(results, how)
    REPORT.write_text(page, encoding="utf-8")
    print(f"{REPORT.relative_to(ROOT)} lists what no test noticed")
    return 0 if is_enough else 3


def report(results: Sequence[Result], how: str) -> tuple[str, bool]:
    """The page that is committed, and whether nine in ten changes that make a difference were caught."""
    reasons = {
        (entry["path"], entry["was"], entry["now"]): entry["reason"]
        for entry in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", ())
    }
    rows: dict[str, list[int]] = {}
    missed, equal = [], []
    for result in results:
        path = result.mutant.path
        old, new = result.mutant.lines((ROOT / path).read_text(encoding="utf-8"))
        reason = None if result.by else reasons.get((path.as_posix(), old, new))
        row = rows.setdefault(result.room, [0, 0, 0])
        row[0] += 1
        row[1] += result.by is not None
        row[2] += reason is not None
        text = f"- `{path.as_posix()}:{result.mutant.line}`\n  - was `{old}`\n  - now `{new}`"
        if reason is not None:
            equal.append(f"{text}\n  - {reason}")
        elif result.by is None:
            missed.append(text)
    changed, caught, same = (sum(row[column] for row in rows.values()) for column in range(3))
    share = caught / max(1, changed - same)
    lines = [
        "# Mutants",
        "",
        "Lines changed at random, one at a time: did a test notice? Written by `make mutants`; a change that makes no",
        "difference stands in `mutants.toml` with the reason, and is not counted.",
        "",
        f"**{caught} of {changed - same} caught ({share:.0%})**; aim: nine in ten. {len(results)} changes, {how}.",
        "",
        "| room | changed | caught | no difference |",
        "|---|---|---|---|",
        *(f"| {room} | {' | '.join(map(str, row))} |" for room, row in rows.items()),
    ]
    lines += ["", "## Survivors", "", *(missed or ["None."])]
    if equal:
        lines += ["", "## No difference", "", *equal]
    return "\n".join(lines) + "\n", share >= 0.9


if __name__ == "__main__":
    sys.exit(main())
