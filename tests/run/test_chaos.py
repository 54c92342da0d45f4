"""A tenth of all model requests goes wrong in every way there is: nothing is lost, repeated or misjudged.

DIFFERENTIAL=full plays the 278 base tasks, else a share of them. CHAOS_SEED repeats the draws (the ports vary).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.evaluation.termination import OURS, TerminationReason
from tests.run.runs import assert_no_server_remains, records, rewards, run, summary

WHOLE = os.environ.get("DIFFERENTIAL") == "full"
SHARE = () if WHOLE else ("domain=[mock,retail,airline,telecom]", "num_tasks=24")
SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))

GIVEN_UP = ("did not reply within", "to be asked again in", "no time is left", "after 10 attempts", "longer than")
"""What is said of a call whose time or attempts are over."""


@dataclass
class Chaos:
    """What a run under faults left, and what a calm one of the same tasks scored."""

    run_dir: Path
    process: subprocess.CompletedProcess[str]
    records: list[dict[str, Any]]
    calm: dict[tuple[str, str, int], float]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    folder = tmp_path_factory.mktemp("chaos")
    calm = run(folder / "calm", "experiment=simulated", *SHARE)
    assert calm.returncode == 0, calm.stderr
    run_dir = folder / "chaos"
    process = run(run_dir, "experiment=chaos", f"server.simulated.seed={SEED}", "limits.call_timeout_s=10", *SHARE)
    print(f"\nchaos seed {SEED}, status {process.returncode}")
    return Chaos(run_dir, process, records(run_dir), rewards(folder / "calm"))


def test_nothing_crashes_and_no_server_stays_behind(chaos: Chaos) -> None:
    output = chaos.process.stdout + chaos.process.stderr + (chaos.run_dir / "run.log").read_text()
    logs = "".join(path.read_text() for path in (chaos.run_dir / "servers").glob("*.log"))
    assert "Traceback" not in output + logs, f"seed {SEED}"
    assert "failed unexpectedly" not in output
    assert_no_server_remains(chaos.run_dir)


def test_every_simulation_is_recorded_once_and_the_inventory_adds_up(chaos: Chaos) -> None:
    keys = Counter((record["domain"], record["task_id"], record["trial"]) for record in chaos.records)
    assert keys.keys() == chaos.calm.keys()
    assert set(keys.values()) == {1}
    inventory = summary(chaos.run_dir)["inventory"]["overall"]
    failed = sum(record["termination_reason"] in OURS for record in chaos.records)
    assert inventory == {
        "scheduled": len(keys),
        "finished": len(keys) - failed,
        "infrastructure_errors": failed,
        "not_run": 0,
    }
    assert chaos.process.returncode == (3 if failed else 0), chaos.process.stderr


def test_what_ended_normally_is_rewarded_as_in_a_calm_run(chaos: Chaos) -> None:
    normal = [record for record in chaos.records if TerminationReason(record["termination_reason"]).regular]
    assert len(normal) > 0.7 * len(chaos.calm), f"seed {SEED}: {Counter(r['error'] for r in chaos.records)}"
    for record in normal:
        key = (record["domain"], record["task_id"], record["trial"])
        assert record["reward"] == chaos.calm[key], f"seed {SEED}: {key}"


def test_roles_fail_only_by_three_empty_replies_in_a_row(chaos: Chaos) -> None:
    for record in chaos.records:
        if record["termination_reason"] not in OURS and not TerminationReason(record["termination_reason"]).regular:
            role = record["termination_reason"].removesuffix("_error")
            assert role in ("agent", "user"), f"seed {SEED}: {record['termination_reason']}"
            last = record["calls"][-3:]
            assert [call["role"] for call in last] == [role] * 3
            assert len({call["step"] for call in last}) == 1
            assert record["reward"] == 0.0


def test_the_only_other_endings_are_hangs_and_requests_that_failed_for_good(chaos: Chaos) -> None:
    for record in chaos.records:
        if record["termination_reason"] in OURS:
            assert record["termination_reason"] in ("deadline", "infrastructure_error"), record["error"]
            words = (
                "did not reply within",
                "to be asked again in",
                "no time is left",
                "after 10 attempts",
                "longer than",
            )
            assert any(word in record["error"] for word in words), f"seed {SEED}: {record['error']}"


def test_faults_did_happen_and_were_retried(chaos: Chaos) -> None:
    attempts = Counter(call["attempts"] for record in chaos.records for call in record["calls"])
    calls = attempts.total()
    again = sum(count for times, count in attempts.items() if times > 1)
    assert 0.03 * calls < again < 0.2 * calls, f"seed {SEED}: {attempts}"


def test_malformed_tool_calls_are_tool_errors_that_the_model_can_see(chaos: Chaos) -> None:
    """They are executed, answered with the package's error in the trajectory, and made again in proper form."""
    found = 0
    for record in chaos.records:
        names = {}
        for message in record["messages"]:
            for call in message.get("tool_calls") or ():
                names[call["id"]] = call
            if message["role"] != "tool" or message["id"] not in names:
                continue
            call = names[message["id"]]
            if call["name"].endswith("_now") or "arguments_not_a_json_object" in call["arguments"]:
                assert message["error"], f"seed {SEED}: {call} was answered {message['content']}"
                assert message["content"].startswith("Error"), message["content"]
                found += 1
    assert found > 0, f"seed {SEED}"
