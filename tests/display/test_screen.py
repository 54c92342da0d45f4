"""Names and figures in the few characters that a line of the screen has."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tau2_fleet.display import screen
from tau2_fleet.telemetry.snapshot import DomainCounters, InFlight, ReplicaFigures, RunSnapshot


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


def a_run(**fields: Any) -> RunSnapshot:
    retail, airline = DomainCounters(4, done=1, passed=1, in_flight=2), DomainCounters(2, done=2, errors=1)
    overall = DomainCounters(6, done=3, passed=1, in_flight=2, errors=1)
    about: dict[str, Any] = {"domains": {"retail": retail, "airline": airline}, "overall": overall}
    about |= {"input_tokens": 1500, "output_tokens": 20}
    return RunSnapshot(**{**about, **fields})


def drawn(shown: RunSnapshot, width: int = 100, **more: Any) -> list[str]:
    """The lines of a screen, plain and without its bars' signs."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(screen.Screen(shown, **more))
    return capture.get().splitlines()


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in lines]


def test_a_screen_has_a_bar_per_domain_one_for_all_and_its_numbers() -> None:
    lines = plain(drawn(a_run(eta_s=65)))
    bar = r"  [━╸╺ ]{28}"
    assert re.fullmatch(rf"retail {bar}  1/4  pass\^1 1\.00  in flight 2  errors 0", lines[0])
    assert re.fullmatch(rf"airline{bar}  2/2  pass\^1 0\.00  in flight 0  errors 1", lines[1])
    assert re.fullmatch(rf"all    {bar}  3/6  pass\^1 0\.33  in flight 2  errors 1", lines[2])
    assert lines[3:] == ["elapsed 0:00   ETA 1:05   cost $0.0000   tokens 1.5k in, 20 out"]
    alone = {"retail": DomainCounters(1, done=1)}
    assert [line[:6] for line in plain(drawn(a_run(domains=alone)))] == ["retail", "elapse"], "one bar says it all"
    empty, half = (drawn(a_run(domains={"r": DomainCounters(total, done=done)}))[0] for total, done in ((0, 0), (2, 1)))
    assert "\x1b[36m" not in empty
    assert f"\x1b[36m{'━' * 14}\x1b[0m" in half
    assert len(plain(drawn(a_run(), numbers=False))) == 3


@pytest.mark.parametrize(("width", "bar"), [(70, 8), (92, 20), (200, 40)])
def test_a_bar_has_the_room_that_the_figures_leave(width: int, bar: int) -> None:
    [line] = [line for line in plain(drawn(a_run(), width)) if line.startswith("airline")]
    assert len(re.findall("[━╸╺]", line)) == bar


def test_a_narrow_screen_cuts_lines_in_place_of_breaking_them() -> None:
    names = {f"a-domain-of-a-long-name-{number}": DomainCounters(4, done=1) for number in range(2)}
    one = InFlight("mock", "x" * 60, 0, 9.0, "agent", 1)
    replica = ReplicaFigures("agent/0" * 9, "ready", 1, 2, 0.5, 1234.5)
    shown = a_run(domains=names, idle=(one,), replicas=(replica,))
    assert len(plain(drawn(shown, 50, numbers=False))) == 5


def test_replicas_stand_in_rows_with_what_is_known_of_them() -> None:
    replicas = (
        ReplicaFigures("agent/0", "ready", 3, 1, 0.25, 1234.5),
        ReplicaFigures("agent/10", "loading", 3, None, None, 0.0),
        *(ReplicaFigures(f"user/{number}", "ready", 0, 0, 0.0, 0.0) for number in range(6)),
        ReplicaFigures("last/0", "ready", 2, 0, None, 10.0),
        ReplicaFigures("last/1", "gone", None, None, None, 0.0),
        ReplicaFigures("last/2", "gone", 4, 0, None, 20.0),
    )
    lines = drawn(a_run(replicas=replicas), numbers=False)[3:]
    shown = plain(lines)
    assert shown[0] == "agent/0   ready    3 running, 1 waiting  1,234 tok/s  KV 25%"
    assert shown[1] == "agent/10  loading                            0 tok/s"
    assert shown[2] == "user/0    ready    0 running, 0 waiting      0 tok/s   KV 0%"
    assert shown[8:] == ["3 more    1 ready             6 running     30 tok/s"]
    assert "\x1b[32mready" in lines[0]
    assert "\x1b[33mloading" in lines[1]


def test_a_name_of_just_the_room_there_is_stays_whole() -> None:
    assert screen.name_of("mock", "a" * 43, 0) == f"mock/{'a' * 43} #0"
