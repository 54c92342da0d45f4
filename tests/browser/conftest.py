"""Chromium and the runs that its pages show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.record.line import encode_line
from tests.analysis.damaged import damaged_records

EVIL = (
    "<script>window.broken = 1</script></script><!--<script>--><img src=x onerror='window.broken = 1'> "
    "]]> {{ 7 * 7 }} \u202egnp.exe \u0000\u001b[2J \ud800 https://example.invalid/beacon"
)
"""What a model or a task may say; nothing of it may run, turn the text round or leave the machine."""


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of damage to five tasks of airline, the first of them speaking evil."""
    directory = tmp_path_factory.mktemp("browser") / "a run"
    directory.mkdir()
    found = damaged_records(load_domain("airline"), 8)
    records = [record for kind in found.values() for record in kind]
    for trial, record in enumerate(records):
        record["trial"] = trial
    _make_evil(records[0])
    with (directory / "simulations.jsonl").open("wb") as file:
        for record in records:
            file.write(encode_line(record))
    return directory


def _make_evil(record: dict[str, Any]) -> None:
    record["messages"][1]["content"] = EVIL
    record["messages"][2]["content"] = EVIL + "x" * 2**20
    record["error"] = EVIL
    record["notes"] = json.loads(json.dumps({EVIL.replace("\ud800", ""): "note"}))
