"""How many simulations are in flight, and in which order they begin, never changes what a run comes to."""

from __future__ import annotations

import json
from pathlib import Path

from tests.run.runs import records, rewards, run, summary

ENGINE = ("server.simulated.engine.on=true", "server.simulated.engine.speed=50", "server.num=2", "report=false")


def test_rewards_are_the_same_with_auto_and_with_a_number_and_lengths_are_learned_in_the_cache(tmp_path: Path):
    cache = tmp_path / "cache"
    for name, keys in (
        ("auto", ()),
        ("again", ()),
        ("two", ("max_concurrency=2", "schedule=as_listed")),
    ):
        process = run(tmp_path / name, "experiment=smoke", "num_trials=2", f"scratch_dir={cache}", *keys, *ENGINE)
        assert process.returncode == 0, process.stderr
    assert rewards(tmp_path / "auto") == rewards(tmp_path / "again") == rewards(tmp_path / "two")
    events = [json.loads(line) for line in (tmp_path / "auto" / "profile.jsonl").read_text().splitlines()]
    decided = [event for event in events if event["type"] == "concurrency"]
    assert decided[0]["limit"] > 10
    assert decided[0]["reason"] == "KV cache over a typical context"
    assert {event["pool"] for event in decided} <= {"agent", "simulated"}
    assert "limit" in (tmp_path / "auto" / "trace.json").read_text()
    assert "concurrency" not in {
        json.loads(line)["type"] for line in (tmp_path / "two" / "profile.jsonl").read_text().splitlines()
    }
    digests = {summary(tmp_path / name)["result_digest"] for name in ("auto", "again", "two")}
    assert len(digests) == 1
    departures = [summary(tmp_path / name)["reference"]["departures"] for name in ("auto", "two")]
    assert departures[0] == departures[1]
    assert "servers" in summary(tmp_path / "auto")
    learned = json.loads((cache / "lengths.json").read_text())["models"]["simulated"]
    calls = sum(call["role"] == "agent" for record in records(tmp_path / "auto") for call in record["calls"])
    assert sum(mean * 2 for _, mean in learned.values()) == calls
    assert not list(tmp_path.glob("auto/**/lengths.json"))
