"""What a real (simulated) run tells about itself agrees with its records: times, counts, tokens, rows of the trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LEAVES = ("llm_call", "user_sim", "expert_call", "evaluator", "tool_call")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at log_level=PROFILE with latencies long enough for 2% to be measured."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    latency = directory.parent / "latency.yaml"
    latency.write_text("roles:\n  agent: {0.5: 0.5, 0.9: 0.5}\n  user: {0.5: 0.5, 0.9: 0.5}\n")
    settings = [
        "experiment=simulated", "domain=[retail,airline]", "num_tasks=4", "log_level=PROFILE",
        f"server.simulated.latency={latency}", f"hydra.run.dir={directory}",
    ]  # fmt: skip
    with (directory.parent / "stdout").open("w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "src.main", *settings],
            cwd=CHECKOUT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return directory


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _by_simulation(events: Iterable[Json]) -> dict[tuple[str, str, int], list[Json]]:
    grouped: dict[tuple[str, str, int], list[Json]] = defaultdict(list)
    for event in events:
        if "domain" in event:
            grouped[event["domain"], event["task_id"], event["trial"]].append(event)
    return grouped


def test_the_times_of_the_events_add_up_to_each_simulation_within_two_percent(run_dir: Path) -> None:
    events = _by_simulation(_lines(run_dir / "profile.jsonl"))
    records = _lines(run_dir / "simulations.jsonl")
    assert len(records) == 8
    shares = []
    for record in records:
        own = events[record["domain"], record["task_id"], record["trial"]]
        told_s = sum(event["duration_ms"] for event in own if event["type"] in LEAVES) / 1000
        shares.append(told_s / record["duration_s"])
    assert max(shares) == pytest.approx(1, abs=0.02)
    assert min(shares) > 0.9, "what a busy machine keeps one waiting between two events is of no event"


def test_counts_tokens_and_cost_of_the_events_are_those_of_the_records(run_dir: Path) -> None:
    events = _by_simulation(_lines(run_dir / "profile.jsonl"))
    for record in _lines(run_dir / "simulations.jsonl"):
        own = events[record["domain"], record["task_id"], record["trial"]]
        kinds = Counter(event["type"] for event in own)
        assert kinds["tool_call"] == sum(message["role"] == "tool" for message in record["messages"])
        assert kinds["llm_call"] + kinds["user_sim"] + kinds["expert_call"] == len(record["calls"])
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            told = sum(event.get(name, 0) for event in own)
            assert told == sum(usage[name] for usage in record["usage_by_role"].values())
        assert sum(event["cost_usd"] for event in own if event["type"] in LEAVES[:4]) == pytest.approx(
            sum(record["cost_by_role"].values())
        )
        assert len({event["thread"] for event in own}) == 1
    assert len({own[0]["thread"] for own in events.values()}) == 8


def test_every_end_of_a_simulation_is_told_in_its_own_name(run_dir: Path) -> None:
    ends = [event for event in _lines(run_dir / "profile.jsonl") if event["type"] == "simulation"]
    records = _lines(run_dir / "simulations.jsonl")
    told = {(end.get("domain"), end.get("task_id"), end.get("trial")) for end in ends}
    assert told == {(record["domain"], record["task_id"], record["trial"]) for record in records}
    assert len(ends) == len(records)


def test_the_log_lines_are_the_events_once_in_the_file_and_once_on_stdout(run_dir: Path) -> None:
    kinds = Counter(event["type"] for event in _lines(run_dir / "profile.jsonl"))
    for path in (run_dir / "run.log", run_dir.parent / "stdout"):
        text = path.read_text()
        for kind in ("llm_call", "user_sim", "tool_call", "step_complete", "simulation"):
            assert text.count(f" type={kind} ") == kinds[kind] > 0, (path.name, kind)


def test_the_trace_has_a_row_for_each_simulation_in_which_slices_nest(run_dir: Path) -> None:
    events = json.loads((run_dir / "trace.json").read_text())
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert {"simulations retail", "simulations airline", "replica agent/0"} <= set(names.values())
    rows: dict[tuple[int, int], list[Json]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append(event)
    simulations = [key for key in rows if names[key[0]].startswith("simulations")]
    assert len(simulations) == 8
    for slices in rows.values():
        open_ends: list[float] = []
        for one in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
            # Clocks of two kinds meet here; a millisecond apart is together.
            while open_ends and open_ends[-1] <= one["ts"] + 1000:
                open_ends.pop()
            assert not open_ends or one["ts"] + one["dur"] <= open_ends[-1] + 1000
            open_ends.append(one["ts"] + one["dur"])
