"""Which tests reach a line, and which start processes: a pytest plugin that notes it, and the reader of its notes.

`scripts.mutants` asks. Each folder of tests has notes of its own, so that a change of one makes one anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

NOTES = ".coverage"
TESTS = "tests.json"
DIGEST = "digest"
PACKAGE = Path("src", "tau2_fleet")
_FOLDER = "TAU2_FLEET_REACH"
"""Environment variable: where the notes go."""
_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec")
"""Events of Python's audit hooks."""

_times: dict[str, float] = defaultdict(float)
_starting: set[str] = set()
_running = ""


def measure(root: Path, folder: Path, tests: str) -> None:
    """Run a folder of tests once and note in `folder` which of them reach which line of the package, and their times.

    Lines that only a process of their own reaches are in no note. Nothing is run where the notes are of these very
    files.
    """
    digest, noted = _digest(root, tests), folder / DIGEST
    if noted.exists() and noted.read_text(encoding="utf-8") == digest:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    settings = folder / "coveragerc"
    settings.write_text(
        f"[run]\nsource = {root / PACKAGE}\ndata_file = {folder / NOTES}\ncore = ctrace\nrelative_files = True\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-p", "scripts.reach"]
    environment = {**os.environ, _FOLDER: str(folder), "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    subprocess.run([*command, "-m", "not alone", tests], cwd=root, env=environment, check=False)
    noted.write_text(digest, encoding="utf-8")


def _digest(root: Path, tests: str) -> str:
    files = sorted(file for part in (PACKAGE, tests) for file in (root / part).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def pytest_sessionstart(session: Any) -> None:
    """Hear of every process from here on."""
    del session
    sys.addaudithook(_note_start)


def _note_start(event: str, arguments: Any) -> None:
    del arguments
    if event in _STARTS:
        _starting.add(_running)


def pytest_runtest_logstart(nodeid: str) -> None:
    """From here on lines are reached by this test, its fixtures' among them."""
    import coverage

    global _running
    _running = _function(nodeid)
    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(_running)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Any:
    """A process that a fixture starts may serve all tests of the file."""
    global _running
    _running = item.nodeid.partition("::")[0]
    try:
        return (yield)
    finally:
        _running = _function(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a test's function takes."""
    _times[_function(report.nodeid)] += report.duration


def pytest_sessionfinish(session: Any) -> None:
    """Keep the times."""
    del session
    folder = os.environ.get(_FOLDER)
    if folder:
        starting = [name for name in _times if name in _starting or name.partition("::")[0] in _starting]
        text = json.dumps({"seconds": _times, "start_processes": starting})
        Path(folder, TESTS).write_text(text, encoding="utf-8")


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


class Reach:
    """The notes of some folders of tests."""

    def __init__(self, folders: Sequence[Path]) -> None:
        from coverage import CoverageData

        self._data, self._seconds, self._starting = [], dict[str, float](), set[str]()
        for folder in folders:
            data = CoverageData(str(folder / NOTES))
            data.read()
            self._data.append(data)
            told = json.loads((folder / TESTS).read_text(encoding="utf-8"))
            self._seconds.update(told["seconds"])
            self._starting.update(told["start_processes"])
        self._lines: dict[Path, dict[int, set[str]]] = {}

    def tests(self, path: Path, line: int) -> list[str]:
        """The test functions that reach a line of a file of the checkout, the quickest first.

        What is reached by an import alone, as constants are, counts as reached by all that reach any line of the file.
        """
        if path not in self._lines:
            found = self._lines[path] = defaultdict(set)
            for data in self._data:
                for number, tests in data.contexts_by_lineno(str(path)).items():
                    found[number].update(tests)
        known = self._lines[path].get(line, set())
        if known == {""}:
            known = set[str]().union(*self._lines[path].values())
        return sorted(filter(None, known), key=self.seconds)

    def with_processes(self) -> list[str]:
        """The test functions that start processes, the quickest first: those may reach any line."""
        return sorted(self._starting, key=self.seconds)

    def seconds(self, test: str) -> float:
        """What a test function took, all its cases together."""
        return self._seconds.get(test, 0.0)
