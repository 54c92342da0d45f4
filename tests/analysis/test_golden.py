"""What `show` and `analyze` say of a run, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compare.runs import call
from tests.golden import assert_agrees, eventful_run

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eventful_run(tmp_path_factory.mktemp("golden") / "run")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("show", ""), ("show_failed", "--failed"), ("show_task", "--task retail/2 --full --prompts"),
        ("show_ids", "--ids"), ("show_markdown", "--format md"), ("show_csv", "--format csv"),
    ],
)  # fmt: skip
def test_what_show_says(
    run: Path, name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    status, out, err = call("show", run, *options.split())
    assert_agrees(GOLDEN / f"{name}.txt", f"{status}\n{out}\n{err}", run=run)


def test_what_analyze_says_and_writes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    status, out, err = call("analyze", run, "--output", tmp_path / "a", "--no-plots")
    assert_agrees(GOLDEN / "analyze.txt", f"{status}\n{out}\n{err}", run=run, output=tmp_path)
    for path in sorted((tmp_path / "a").glob("*.csv")):
        assert_agrees(GOLDEN / path.name, path.read_text(), run=run)
