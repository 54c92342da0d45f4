"""Replies that servers spoil with status 200, in whole runs: what can be mended costs no reward, all is counted."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.run.runs import records, rewards, run, summary

SHARE = ("domain=[mock,retail,telecom]", "num_tasks=12")
SERVERS = (
    "aborted", "error_inside", "arguments_empty", "arguments_double", "tool_name_marked", "long_id", "only_thinking",
    "thinking_left", "usage_missing",
)  # fmt: skip
MODELS = (
    "arguments_malformed", "tool_unknown", "markup_left", "filtered", "cut", "degenerate", "repeated", "empty",
)  # fmt: skip
_SPOILT = re.compile(r"spoilt reply: (\w+) \S+/([\w-]+)$", re.M)


def spoilt_run(run_dir: Path, *more: str) -> Any:
    return run(run_dir, "experiment=chaos", *SHARE, *more)


def injected(run_dir: Path) -> Counter[tuple[str, str]]:
    """What the servers say that they did, by role and condition."""
    found: Counter[tuple[str, str]] = Counter()
    for path in (run_dir / "servers").glob("*.log"):
        found.update((role, condition) for condition, role in _SPOILT.findall(path.read_text()))
    return found


def counted(run_dir: Path) -> Counter[tuple[str, str]]:
    replies = summary(run_dir)["replies"]
    return Counter({(role, name): count for role, counts in replies.items() for name, count in counts.items()})


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], float]:
    run_dir = tmp_path_factory.mktemp("calm") / "run"
    process = spoilt_run(run_dir, "server.simulated.faults.rate=0")
    assert process.returncode == 0, process.stderr
    assert "first reply" not in process.stderr
    assert counted(run_dir) == Counter()
    return rewards(run_dir)


def test_what_a_server_spoils_costs_no_reward_and_is_counted_as_injected(
    calm: dict[tuple[str, str, int], float], tmp_path: Path
) -> None:
    kinds = f"server.simulated.faults.kinds=[{','.join(SERVERS)}]"
    process = spoilt_run(tmp_path / "run", kinds, "server.simulated.seed=3", "server.simulated.faults.rate=0.2")
    assert process.returncode == 0, process.stderr
    assert rewards(tmp_path / "run") == calm
    assert counted(tmp_path / "run") == injected(tmp_path / "run")
    assert len(counted(tmp_path / "run")) > 5  # which faults are drawn depends on the servers' ports
    for line in process.stderr.splitlines():
        assert "Traceback" not in line
    for _, condition in counted(tmp_path / "run"):
        assert f"first reply that is {condition}" in process.stderr
    assert "replies of" in process.stdout


def test_what_a_model_does_is_counted_exactly_as_injected_and_shown_at_its_turn(tmp_path: Path) -> None:
    kinds = f"server.simulated.faults.kinds=[{','.join(MODELS)}]"
    process = spoilt_run(tmp_path / "run", kinds, "server.simulated.seed=4", "server.simulated.faults.rate=0.2")
    assert process.returncode == 0, process.stderr
    assert counted(tmp_path / "run") == injected(tmp_path / "run")
    assert len({condition for _, condition in counted(tmp_path / "run")}) >= len(MODELS) - 2
    of_turns: Counter[tuple[str, str]] = Counter()
    for record in records(tmp_path / "run"):
        for message in record["messages"]:
            for found in (message.get("raw_data") or {}).get("conditions", ()):
                role, _, condition = found.partition(": ")
                of_turns[role, condition] += 1
    assert of_turns == counted(tmp_path / "run")


def test_a_run_whose_server_spoils_too_many_replies_ends_early_and_says_why(tmp_path: Path) -> None:
    more = ("server.simulated.faults.kinds=[markup_left]", "server.simulated.faults.rate=0.6", "replies.stop_at=0.1")
    process = spoilt_run(tmp_path / "run", *more, "max_concurrency=4")
    assert process.returncode == 3, process.stderr
    assert "replies.stop_at" in process.stdout + process.stderr
    assert summary(tmp_path / "run")["inventory"]["overall"]["not_run"] > 0
    assert "markup_left" in process.stdout
