"""Which tests reach a line: a pytest plugin that notes it, and the reader of its notes; `scripts.mutants` asks."""

from __future__ import annotations

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
_FOLDER = "TAU2_FLEET_REACH"
"""Environment variable: where the notes go."""

_times: dict[str, float] = defaultdict(float)


def measure(root: Path, folder: Path, tests: Sequence[str]) -> None:
    """Run the tests once and note in `folder` which of them reach which line of the package, and their times.

    Lines that only a process of their own reaches are in no note.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "coveragerc"
    package = root / "src" / "tau2_fleet"
    settings.write_text(f"[run]\nsource = {package}\ndata_file = {folder / NOTES}\ncore = ctrace\n", encoding="utf-8")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-p", "scripts.reach"]
    environment = {**os.environ, _FOLDER: str(folder), "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    subprocess.run([*command, "-m", "not alone", *tests], cwd=root, env=environment, check=False)


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

    def __init__(self, folder: Path, root: Path) -> None:
        from coverage import CoverageData

        self._data = CoverageData(str(folder / NOTES))
        self._data.read()
        self._root = root
        self._times: Mapping[str, float] = json.loads((folder / TIMES).read_text(encoding="utf-8"))
        self._lines: dict[Path, dict[int, list[str]]] = {}

    def tests(self, path: Path, line: int) -> list[str]:
        """The test functions that reach a line of a file of the checkout, the quickest first."""
        if path not in self._lines:
            self._lines[path] = self._data.contexts_by_lineno(str(self._root / path))
        found = [test for test in self._lines[path].get(line, ()) if test]
        return sorted(found, key=self.seconds)

    def seconds(self, test: str) -> float:
        """What a test function took, all its cases together."""
        return self._times.get(test, 0.0)
