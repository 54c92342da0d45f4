"""What a W&B run holds, by wandb's own reader of the files of an offline run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def read_back(run_dir: Path) -> list[list[dict[str, Any]]]:
    """The records of each attempt's `.wandb` file, in the order of the attempts."""
    runs = []
    with tempfile.TemporaryDirectory() as place:  # the reader leaves a log where it is started
        for path in sorted((run_dir / "wandb").glob("*run-*/*.wandb")):
            done = subprocess.run(
                [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)],
                cwd=place,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            runs.append([json.loads(line) for line in done.stdout.splitlines()])
    return runs


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if kind in record]


def history(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["item"] for record in of_type(records, "history")]


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The run's summary: the last value of each name."""
    return {name: value for record in of_type(records, "summary") for name, value in record["update"].items()}


def artifacts(records: list[dict[str, Any]]) -> dict[str, dict[str, Path]]:
    """By type of artifact, the name of each of its files and where its contents lie."""
    return {
        record["type"]: {content["path"]: Path(content["local_path"]) for content in record["manifest"]["contents"]}
        for record in of_type(records, "artifact")
    }


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the run's one table, by column."""
    (path,) = artifacts(records)["run_table"].values()
    told = json.loads(path.read_text())
    return [dict(zip(told["columns"], row, strict=True)) for row in told["data"]]
