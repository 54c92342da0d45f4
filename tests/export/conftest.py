"""A run to export: three domains, three trials, of which the last one of each task is made to have failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.run.runs import records, run

Json = dict[str, Any]
SECRET = "sk-live-0123456789abcdefghij"
"""Stands in the conversations; the program learns of it only when it exports."""


def write_records(directory: Path, lines: list[Json]) -> None:
    """Put records into a run directory."""
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    (directory / "simulations.jsonl").write_text(text)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported") / "run"
    done = run(
        directory, "experiment=simulated", "num_tasks=4", "num_trials=3", "report=false", "wandb=disabled",
        "log_level=ERROR",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = records(directory)
    for line in lines:
        if line["trial"] == 2:
            spoil(line)
    write_records(directory, lines)
    return directory


def spoil(line: Json) -> None:
    """The agent's last turn is another one, and brings no reward; it quotes a key, and is odd text."""
    last = max(index for index, message in enumerate(line["messages"]) if message["role"] == "assistant")
    line["messages"][last]["content"] = f"No. {SECRET} \ud800=1".encode("utf-8", "replace").decode()
    line["messages"][last]["tool_calls"] = None
    line["reward_info"]["reward"] = 0.0
    line |= {"reward": 0.0, "sub_rewards": {"DB": 0.0}, "db_diff": None, "seed": 2**63 + 1}


@pytest.fixture
def known_secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    return SECRET
