"""Names and figures in the few characters that a line of the screen has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.display import screen


@pytest.mark.parametrize(("length", "shown"), [(42, "mock/" + "a" * 42), (44, "mock/" + "a" * 34 + "…" + "a" * 8)])
def test_a_long_name_loses_its_middle(length: int, shown: str) -> None:
    assert screen.name_of("mock", "a" * length, 2) == f"{shown} #2"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-:--"), (59.9, "0:59"), (65, "1:05"), (3600, "1:00:00"), (7325, "2:02:05")]
)
def test_times_are_those_of_a_clock(seconds: float | None, shown: str) -> None:
    assert screen.clock(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999"), (1000, "1.0k"), (2_500_000, "2.5M"), (10**9, "1.0G"), (0, "0")]
)
def test_large_counts_have_a_unit(count: int, shown: str) -> None:
    assert screen._short(count) == shown


def test_what_a_run_costs_and_when_it_ends_is_said_as_far_as_it_is_known() -> None:
    run: Any = SimpleNamespace(paused=False, stopping=False, eta_s=65, cost_usd=0.5, cost_at_end=None)
    assert (screen.eta(run), screen.cost(run), screen.share(None), screen.share(0.5)) == (
        "ETA 1:05", "cost $0.5000", "   -", "0.50",
    )  # fmt: skip
    run.cost_at_end = SimpleNamespace(expected=2.0, low=1.5, high=3.0)
    assert screen.cost(run) == "cost $0.5000 of about $2.00 [1.50, 3.00]"
    run.stopping = True
    assert screen.eta(run) == "stopping"
    run.paused = True
    assert screen.eta(run) == "paused"


def test_who_has_been_idle_for_long_is_named_with_whom_it_waits_for() -> None:
    one = SimpleNamespace(domain="mock", task_id="1", trial=0, steps=7, idle_s=4.9, waits_for="agent")
    run: Any = SimpleNamespace(last=(), idle=[one, SimpleNamespace(**{**vars(one), "idle_s": 5.0, "task_id": "2"})])
    assert screen.waiting_longest(run) == screen.tail(run) == "waiting longest: mock/2 #0 5 s for agent"
    run.last = [one]
    assert screen.tail(run) == "last ones: mock/1 #0 step 7 (agent's turn)"
    run.last, run.idle = (), [one]
    assert screen.tail(run) == ""
