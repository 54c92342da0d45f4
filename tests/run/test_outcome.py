"""What a run came to: its exit status, where its simulations are, and what is said of it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.schedule import Schedule, make_schedule
from tau2_fleet.errors import ExitStatus
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.run.outcome import RunOutcome, judge_outcome, show_outcome
from tests.batch.records import make_record
from tests.batch.test_schedule import domain_tasks

COMPLETE, FAILED, MISSING = "user_stop", "infrastructure_error", None


def schedule() -> Schedule:
    return make_schedule(domain_tasks({"mock": 2, "retail": 1}), seed=300, num_trials=1)  # type: ignore[arg-type]


def outcome(
    folder: Path,
    ending: str | None,
    reason: RunEnd | None = None,
    detail: str | None = None,
    outside: frozenset[str] = frozenset(),
) -> RunOutcome:
    """Of two simulations that are complete and a third that ended so."""
    keys = [SimulationKey("mock", "0", 0), SimulationKey("retail", "0", 0), SimulationKey("mock", "1", 0)]
    with Store(folder) as store:
        for key, how in zip(keys, (COMPLETE, COMPLETE, ending), strict=True):
            if how is not None:
                store.append(make_record(key, reason=how, reward=1.0 if how == COMPLETE else 0.0))
        return judge_outcome(schedule(), store, reason, detail, outside=outside)


@pytest.mark.parametrize(
    ("ending", "reason", "status"),
    [
        (COMPLETE, None, ExitStatus.FINISHED),
        (COMPLETE, RunEnd.INTERRUPTED, ExitStatus.FINISHED),
        (COMPLETE, RunEnd.BUDGET, ExitStatus.FINISHED),
        (FAILED, None, ExitStatus.NEGATIVE),
        (MISSING, None, ExitStatus.NEGATIVE),
        (MISSING, RunEnd.INTERRUPTED, ExitStatus.INTERRUPTED),
        (FAILED, RunEnd.INTERRUPTED, ExitStatus.INTERRUPTED),
        *((MISSING, reason, ExitStatus.NEGATIVE) for reason in (RunEnd.BUDGET, RunEnd.TIMEOUT, RunEnd.FATAL)),
    ],
)
def test_the_exit_status_says_whether_all_is_there_and_if_not_whether_a_signal_was_why(
    tmp_path: Path, ending: str | None, reason: RunEnd | None, status: ExitStatus
) -> None:
    found = outcome(tmp_path, ending, reason)
    assert found.exit_status is status
    assert found.as_dict()["exit_status"] == int(status)


def test_every_scheduled_simulation_is_in_the_inventory_once(tmp_path: Path) -> None:
    counts = outcome(tmp_path, FAILED).as_dict()["inventory"]
    assert counts["overall"] == {"scheduled": 3, "finished": 2, "infrastructure_errors": 1, "not_run": 0}
    assert counts["retail"] == {"scheduled": 1, "finished": 1, "infrastructure_errors": 0, "not_run": 0}


def test_infrastructure_failures_count_as_failures_and_are_shown_excluded_beside(tmp_path: Path) -> None:
    metrics = outcome(tmp_path, FAILED).metrics["overall"]
    assert metrics.average_reward.value == pytest.approx(2 / 3)
    assert metrics.average_reward_excluding_infrastructure is not None
    assert metrics.average_reward_excluding_infrastructure.value == 1.0


def test_records_that_this_run_does_not_schedule_do_not_count(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("airline", "0", 0)))
        store.append(make_record(SimulationKey("mock", "0", 1)))
        found = judge_outcome(schedule(), store)
    assert found.inventory["overall"].not_run == 3
    assert found.metrics == {}
    assert found.exit_status is ExitStatus.NEGATIVE


def shown(found: RunOutcome, run_dir: Path) -> str:
    console = Console(file=StringIO(), width=200)
    show_outcome(found, run_dir, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_end_of_a_run_says_why_it_ended_and_how_to_go_on(tmp_path: Path) -> None:
    found = outcome(tmp_path, MISSING, RunEnd.BUDGET, "spent $2.00 [of] limits.max_cost_usd=2")
    text = shown(found, tmp_path / "my run")
    assert "stopped early: spent $2.00 [of] limits.max_cost_usd=2" in text
    assert "1 not run" in text
    assert f"'resume={tmp_path / 'my run'}'" in text
    assert "--failed" not in text, "nothing that ran failed"
    complete = shown(outcome(tmp_path / "other", COMPLETE), tmp_path)
    assert "resume=" not in complete
    assert "stopped" not in complete
    failed = shown(outcome(tmp_path / "third", FAILED), tmp_path)
    assert "1 infrastructure error, counted as a failure (reward without them 1.000)" in failed
    assert "--failed" in failed


def test_a_versions_own_figures_stand_beside_the_headline_where_it_leaves_endings_out(tmp_path: Path) -> None:
    assert "version_figures" not in outcome(tmp_path / "0.2", FAILED).as_dict()
    found = outcome(tmp_path / "1.0.1", FAILED, outside=frozenset({FAILED}))
    assert found.as_dict()["metrics"]["overall"]["average_reward"]["value"] == pytest.approx(2 / 3)
    own = {"average_reward": 1.0, "pass_hat": {"1": 1.0}, "simulations": 2, "tasks": 2, "left_out": 1}
    assert found.as_dict()["version_figures"]["overall"] == own
    told = StringIO()
    show_outcome(found, tmp_path, Console(file=told, width=200))
    assert "overall by the benchmark's own rule: reward 1.000, pass^1 1.000 (1 of 3 simulations left out)" in (
        told.getvalue()
    )
