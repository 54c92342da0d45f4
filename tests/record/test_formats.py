"""docs/formats.md names what a run leaves."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest

from tau2_fleet.errors import ExitStatus
from tests import warm

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "formats.md").read_text()
NAMED = set(re.findall(r"`([^`\n]+)`", TEXT))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every kind of file is there."""
    folder = tmp_path_factory.mktemp("formats") / "run"
    words = ["run", "experiment=smoke", "log_level=ERROR", f"hydra.run.dir={folder}"]
    assert warm.run("tau2_fleet", words, cwd=ROOT, env=os.environ).returncode == 0
    return folder


def test_every_file_of_a_run_is_described(run_dir: Path) -> None:
    for path in run_dir.rglob("*"):
        name = re.sub(r"^(mock)\.json$", "DOMAIN.json", path.relative_to(run_dir).parts[0])
        assert name in NAMED or f"{name}/" in NAMED, name
        if path.parent.name == "servers":
            name = re.sub(r"\w+-\d+\.log", "POOL-N.log", re.sub(r"tasks-\w+\.json", "tasks-DIGEST.json", path.name))
            assert name in NAMED, path
        if path.parent.name == ".hydra":
            assert path.name in NAMED, path


def test_every_field_of_record_events_and_summary_is_described(run_dir: Path) -> None:
    records = [json.loads(line) for line in (run_dir / "simulations.jsonl").read_text().splitlines()]
    fields = {name for record in records for name in record}
    fields |= {name for record in records for call in record["calls"] for name in call}
    events = [json.loads(line) for line in (run_dir / "profile.jsonl").read_text().splitlines()]
    fields |= {name for event in events for name in event} | {event["type"] for event in events}
    fields |= set(json.loads((run_dir / "summary.json").read_text()))
    assert fields - NAMED == set()
    with (run_dir / "simulations.csv").open() as file:
        assert "cause" in next(csv.reader(file))


def test_the_exit_statuses_are_those_of_every_command() -> None:
    assert re.findall(r"^\| (\d+) \| (.+) \|$", TEXT, re.M) == [(str(int(one)), one.meaning) for one in ExitStatus]
    assert [*map(int, ExitStatus)] == [0, 1, 2, 3, 4, 130]


def test_nothing_refers_to_documents_outside_the_repository() -> None:
    outside = re.compile(r"\b(spec(ification)?,? (section )?\d|issue #?\d|design\.md)", re.IGNORECASE)
    files = [path for folder in ("src", "conf", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.*")]
    for path in (*files, ROOT / "README.md", ROOT / "Makefile"):
        if path.suffix in (".py", ".yaml", ".md", ".txt", ""):
            assert outside.search(path.read_text()) is None, path
