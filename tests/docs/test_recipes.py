"""The recipes for lines of the log, run as they stand on a real run's log, and what is said of W&B."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking.wandb_tables import run_files
from tests.run.runs import ROOT, records, run

GUIDES = ROOT / "docs" / "guide"
LINES = (GUIDES / "analyze.md").read_text(encoding="utf-8").split("## Lines of the log\n")[1]
WANDB = (GUIDES / "wandb.md").read_text(encoding="utf-8")


def recipes() -> dict[str, str]:
    """The comment above each command in the section, and the command."""
    lines = LINES.split("```sh log\n")[1].split("```")[0].splitlines()
    return {comment.removeprefix("# "): command for comment, command in pairwise(lines) if comment.startswith("# ")}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("profiled") / "run"
    process = run(
        run_dir,
        "experiment=smoke",
        "experts=simulated",
        "server.simulated.call_expert_rate=0.5",
        "log_level=PROFILE",
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("type=llm_call") == (run_dir / "run.log").read_text().count("type=llm_call")
    return run_dir


def answer(command: str, run_dir: Path) -> str:
    done = subprocess.run(
        command,
        shell=True,
        env={"LOG": str(run_dir / "run.log"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_page_has_the_recipes_that_are_tested_here():
    assert len(recipes()) == 4


def test_counting_expert_calls(profiled: Path):
    calls = [call for record in records(profiled) for call in record["calls"] if call["role"].startswith("expert")]
    assert int(answer(recipes()["how many calls went to experts"], profiled)) == len(calls) > 0


def test_the_mean_time_of_the_agents_calls(profiled: Path):
    times = [call["duration_ms"] for record in records(profiled) for call in record["calls"] if call["role"] == "agent"]
    told = float(answer(recipes()["mean time of the agent's calls, waiting included, in milliseconds"], profiled))
    assert told == pytest.approx(sum(times) / len(times), abs=0.1)


def test_tool_calls_by_function(profiled: Path):
    counts = {
        line.split()[1].removeprefix("function="): int(line.split()[0])
        for line in answer(recipes()["tool calls by function"], profiled).splitlines()
    }
    events = [json.loads(line) for line in (profiled / "profile.jsonl").read_bytes().splitlines()]
    assert sum(counts.values()) == sum(event["type"] == "tool_call" for event in events) > 0
    assert "update_task_status" in counts


def test_the_longest_steps(profiled: Path):
    lines = answer(recipes()["the five longest steps"], profiled).splitlines()
    times = [float(line.rpartition("=")[2]) for line in lines]
    assert len(times) == 5
    assert times == sorted(times, reverse=True)


def test_queueing_and_connecting_are_parts_of_a_calls_time(profiled: Path):
    events = [json.loads(line) for line in (profiled / "profile.jsonl").read_bytes().splitlines()]
    calls = [event for event in events if "queue_ms" in event]
    assert all(call["duration_ms"] >= call["queue_ms"] + (call.get("connect_ms") or 0) for call in calls)
    assert any(call.get("connect_ms") for call in calls)
    assert "`queue_ms`" in LINES
    assert "`connect_ms`" in LINES


def test_every_choice_and_key_of_wandb_is_told():
    assert set(re.findall(r"`wandb=(\w+)`", WANDB)) == set(WandbMode)
    keys = {field.name for field in fields(WandbSettings)} - {"mode"}
    assert set(re.findall(r"`wandb\.(\w+)[`=]", WANDB)) == keys


def test_the_artifact_holds_by_default_what_is_told(profiled: Path):
    told = WANDB.split("an artifact of type `run` with")[1].split(". With it")[0]
    uploaded = {path.relative_to(profiled).parts[0] for path in run_files(profiled, transcripts=False)}
    assert {name.rstrip("/") for name in re.findall(r"`([^`]+)`", told)} == uploaded
