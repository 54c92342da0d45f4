"""Logs of `--format inspect`, read by Inspect itself in its own environment (`make install-inspect`); never skipped."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.export.command import main
from tests.export.conftest import known_secret, run_dir, write_records
from tests.run.runs import records

__all__ = ["known_secret", "run_dir"]  # fixtures

Json = dict[str, Any]
PYTHON = Path(os.environ.get("INSPECT_PYTHON") or Path(__file__).resolve().parents[2] / ".venv-inspect/bin/python")
READ = """
import json, sys
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
found = []
for info in list_eval_logs(sys.argv[1]):
    log = read_eval_log(info)
    found.append(log.model_dump(mode="json", exclude_none=True))
    found[-1]["header"] = read_eval_log(info, header_only=True).results.model_dump(mode="json", exclude_none=True)
    found[-1]["summaries"] = [one.model_dump(mode="json") for one in read_eval_log_sample_summaries(info)]
    last = log.samples[-1]
    assert read_eval_log_sample(info, last.id, last.epoch).messages == last.messages
json.dump(found, sys.stdout)
"""


def read(folder: Path) -> dict[str, Json]:
    """What Inspect reads in a folder of logs, by domain."""
    assert PYTHON.is_file(), f"no Inspect at {PYTHON}: make install-inspect"
    done = subprocess.run([PYTHON, "-c", READ, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return {log["eval"]["metadata"]["domain"]: log for log in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def logs(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    folder = tmp_path_factory.mktemp("inspect") / "logs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_API_KEY", "sk-live-0123456789abcdefghij")
        assert main([str(run_dir), "--format", "inspect", "-o", str(folder)]) == 0
    return read(folder)


def test_every_message_comes_back(run_dir: Path, logs: dict[str, Json]) -> None:
    kept = {(r["domain"], r["task_id"], r["trial"] + 1): r for r in records(run_dir)}
    samples = {
        (domain, sample["id"], sample["epoch"]): sample for domain, log in logs.items() for sample in log["samples"]
    }
    assert samples.keys() == kept.keys()
    for key, record in kept.items():
        system, *messages = samples[key]["messages"]
        assert system["content"].startswith("<instructions>")
        assert len(messages) == len(record["messages"])
        for found, message in zip(messages, record["messages"], strict=True):
            assert found["role"] == message["role"]
            text = (message["content"] or "").replace("sk-live-0123456789abcdefghij", "[redacted]")
            calls = message.get("tool_calls") or []
            if message["role"] == "user" and calls:
                assert found["metadata"]["tool_calls"] == calls
                assert calls[0]["name"] in found["content"]
                continue
            assert found["content"] == text
            assert [(call["id"], call["function"], call["arguments"]) for call in found.get("tool_calls", [])] == [
                (call["id"], call["name"], call["arguments"]) for call in calls
            ]
            if message["role"] == "tool":
                assert found["tool_call_id"] == message["id"]


def test_scores_and_figures_are_those_of_the_run(run_dir: Path, logs: dict[str, Json]) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    for domain, log in logs.items():
        assert (log["status"], log["version"]) == ("success", 2)
        assert log["eval"]["metadata"]["result_digest"] == summary["result_digest"]
        [reward] = [score for score in log["results"]["scores"] if score["name"] == "reward"]
        metrics = {name: metric["value"] for name, metric in reward["metrics"].items()}
        assert metrics == pytest.approx({"mean": 2 / 3, "pass^1": 2 / 3, "pass^2": 1 / 3, "pass^3": 0.0})
        assert [sample["scores"]["reward"]["value"] for sample in log["samples"]] == [
            float(sample["epoch"] < 3) for sample in log["samples"]
        ]
        assert log["header"]["total_samples"] == len(log["summaries"]) == len(log["samples"]) == 12
        assert log["eval"]["dataset"]["samples"] == 4
        task = log["samples"][0]
        assert task["input"].count(":") > 1, domain  # what the customer wants


def test_endings_of_all_kinds_and_odd_records_are_read(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [first] = records(run_dir)[:1]
    endings = {
        "infrastructure_error": ("error", "HTTP 500"),
        "deadline": ("limit", "time"),
        "context_overflow": ("limit", "context"),
        "max_steps": ("limit", "message"),
        "agent_error": (None, None),
    }
    odd = {
        "started": "once",
        "ended": "",
        "messages": [{"role": "assistant", "tool_calls": [{"name": "", "arguments": None}]}],
        "calls": [],
    }
    lines = [
        {**first, "trial": at, "termination_reason": reason, "reward": 0.0, "error": "HTTP 500"}
        for at, reason in enumerate(endings)
    ]
    lines[-1] |= odd
    lines[0]["messages"][-1] |= {"role": "assistant", "raw_data": {"author": "agent", "thinking": "Hm."}}
    damaged = {**first, "trial": len(lines), "messages": [{"role": "assistant", "tool_calls": [{"name": 3}]}]}
    write_records(tmp_path / "run", [*lines, damaged])
    assert main([str(tmp_path / "run"), "--format", "inspect"]) == 0
    assert "1 damaged line (line 6: messages is a list of another form), passed over" in capsys.readouterr().err
    [log] = read(tmp_path / "run" / "export" / "inspect").values()
    assert log["status"] == "cancelled"  # no summary: nobody says how it ended
    for sample, (kind, told) in zip(log["samples"], endings.values(), strict=True):
        assert {"error", "limit"} & sample.keys() == ({kind} if kind else set())
        if kind == "limit":
            assert sample["limit"]["type"] == told
        elif kind == "error":
            assert sample["error"]["message"] == told
    assert log["samples"][0]["messages"][-1]["content"][0]["type"] == "reasoning"
