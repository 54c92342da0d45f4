"""What `compare` and `plan` say of two sides, word for word and in every form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.compare.runs import call, drawn, write_run
from tests.golden import assert_agrees

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs with losses of several kinds, that differ in all figures."""
    folder = tmp_path_factory.mktemp("golden")
    before: dict[str, Sequence[float | str]] = {**drawn(0.5, 1)}
    before |= {"retail/0": ["infrastructure_error", 0.0], "airline/1": ["deadline", "deadline"]}
    after: dict[str, Sequence[float | str]] = {**drawn(0.8, 2), "retail/2": ["max_steps", 1.0]}
    after["airline/3"] = [1.0, "infrastructure_error"]
    sides = write_run(folder / "old", before, seed=1), write_run(folder / "new", after, "agent.model=new/model", seed=2)
    for directory, factor in zip(sides, (2, 3), strict=True):
        path = directory / "simulations.jsonl"
        changed = [_with_figures(json.loads(line), number, factor) for number, line in enumerate(path.open())]
        path.write_text("".join(json.dumps(record) + "\n" for record in changed))
    return sides


def _with_figures(record: dict[str, Any], number: int, factor: int) -> dict[str, Any]:
    size = number % 7 + factor
    record["usage_by_role"] = {"agent": {"input_tokens": 500 * size, "output_tokens": 11 * size}}
    record["duration_s"], record["cost_by_role"] = 3.0 * size, {"agent": 0.01 * size}
    return record


def test_what_compare_says_in_every_form(sides: tuple[Path, Path], tmp_path: Path) -> None:
    files = [tmp_path / f"compared.{ending}" for ending in ("md", "json", "xml", "html")]
    options = [word for path in files for word in ("-o", path)]
    status, out, err = call("compare", "--baseline", sides[0], "--candidate", sides[1], "--fail-below=-3pp", *options)
    places = {"old": sides[0], "new": sides[1], "output": tmp_path}
    assert_agrees(GOLDEN / "compare.txt", f"{status}\n{out}\n{err}", **places)
    for path in files[:3]:
        assert_agrees(GOLDEN / path.name, path.read_text(), **places)
    pictures = re.findall(r"<svg.*?</svg>", files[3].read_text(), re.DOTALL)
    assert_agrees(GOLDEN / "compared.svg", "\n".join(pictures).replace("><", ">\n<"))


@pytest.mark.parametrize(("name", "options"), [("plan", "--power 0.9"), ("plan_json", "--json")])
def test_what_plan_says(sides: tuple[Path, Path], name: str, options: str) -> None:
    status, out, err = call("plan", sides[0], "--detect", "25pp", "--effects-sd", "2pp", "10pp", *options.split())
    assert_agrees(GOLDEN / f"{name}.txt", f"{status}\n{out}\n{err}", old=sides[0], new=sides[1])
