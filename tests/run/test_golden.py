"""What a run says at its end, and what `forecast` says before one, word for word."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.record.store import Store
from tau2_fleet.run.outcome import judge_outcome, show_outcome
from tests.batch.test_schedule import domain_tasks
from tests.golden import assert_agrees, eventful_run

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class End:
    """Which simulations there were to be, and how the run ended."""

    sizes: dict[str, int]
    trials: int = 2
    reason: RunEnd | None = None
    detail: str | None = None
    experts_on: bool = False
    outside: tuple[str, ...] = ()


ENDS = {
    "whole": End({"retail": 9, "airline": 3}, experts_on=True),
    "interrupted": End({"retail": 10, "airline": 4}, 3, RunEnd.INTERRUPTED, outside=("infrastructure_error",)),
    "one_domain": End({"airline": 3}, 1),
    "budget": End({"airline": 3, "mock": 2}, 2, RunEnd.BUDGET, "spent $1.00 of limits.max_cost_usd=1"),
    "nothing": End({"mock": 1}, 1, RunEnd.INTERRUPTED),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eventful_run(tmp_path_factory.mktemp("golden") / "run")


@pytest.mark.parametrize("name", ENDS)
def test_what_a_run_came_to(run: Path, name: str) -> None:
    end = ENDS[name]
    schedule = make_schedule(domain_tasks(end.sizes), seed=300, num_trials=end.trials)
    with Store(run) as store:
        outcome = judge_outcome(schedule, store, end.reason, end.detail, experts_on=end.experts_on, outside=end.outside)
    console = Console(width=110, file=io.StringIO(), force_terminal=False)
    with console.capture() as shown:
        show_outcome(outcome, run, console)
    told = json.dumps(outcome.as_dict(), indent=0, sort_keys=True)
    assert_agrees(GOLDEN / f"outcome_{name}.txt", f"{shown.get()}\n{told}", run=run)
