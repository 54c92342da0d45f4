"""Which tests reach a line: a pytest plugin that notes it, and the reader of its notes; `scripts.mutants` asks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

NOTES = ".coverage"
TIMES = "times.json"
DIGEST = "digest"
_FOLDER = "TAU2_FLEET_REACH"
"""Environment variable: where the notes go."""

_times: dict[str, float] = defaultdict(float)


def measure(root: Path, folder: Path, package: Path, tests: Sequence[str]) -> None:
    """Run tests once and note in `folder` which of them reach which line of a part of the package, and their times.

    Lines that only a process of their own reaches are in no note. Nothing is run where the notes are of these very
    files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest, noted = _digest(root, [package, *map(Path, tests)]), folder / DIGEST
    if noted.exists() and noted.read_text(encoding="utf-8") == digest:
        return
    for old in folder.iterdir():
        old.unlink()
    settings = folder / "coveragerc"
    settings.write_text(
        f"[run]\nsource = {root / package}\ndata_file = {folder / NOTES}\ncore = ctrace\nrelative_files = True\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-p", "scripts.reach"]
    environment = {**os.environ, _FOLDER: str(folder), "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    subprocess.run([*command, "-m", "not alone", *tests], cwd=root, env=environment, check=False)
    noted.write_text(digest, encoding="utf-8")


def _digest(root: Path, parts: Sequence[Path]) -> str:
    files = sorted(file for part in parts for file in (root / part).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def pytest_runtest_logstart(nodeid: str) -> None:
    """From here on lines are reached by this test, its fixtures' among them."""
    import coverage

    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(_function(nodeid))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a test's function takes."""
    _times[_function(report.nodeid)] += report.duration


def pytest_sessionfinish(session: Any) -> None:
    """Keep the times."""
    del session
    folder = os.environ.get(_FOLDER)
    if folder:
        Path(folder, TIMES).write_text(json.dumps(_times), encoding="utf-8")


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


class Reach:
    """The notes of one measurement."""

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        self._data = CoverageData(str(folder / NOTES))
        self._data.read()
        self._times: Mapping[str, float] = json.loads((folder / TIMES).read_text(encoding="utf-8"))
        self._lines: dict[Path, dict[int, list[str]]] = {}

    def tests(self, path: Path, line: int) -> list[str]:
        """The test functions that reach a line of a file of the checkout, the quickest first."""
        if path not in self._lines:
            self._lines[path] = self._data.contexts_by_lineno(str(path))
        found = [test for test in self._lines[path].get(line, ()) if test]
        return sorted(found, key=self.seconds)

    def all_tests(self) -> list[str]:
        """Every test function that ran, the quickest first."""
        return sorted(self._times, key=self.seconds)

    def seconds(self, test: str) -> float:
        """What a test function took, all its cases together."""
        return self._times.get(test, 0.0)
