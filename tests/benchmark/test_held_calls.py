"""Calls that can hold a process are made in a fork: what it gives comes back, and nothing else of it stays."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tau2_fleet.benchmark.custom.child.held_calls import Held, can_hold, in_fork


@pytest.mark.parametrize(
    ("name", "arguments", "can"),
    [
        ("calculate", {"expression": "9**9"}, True),
        ("calculate", {"expression": "9*9"}, False),
        ("calculate", {"expression": "1" * 500}, False),
        ("calculate", {"expression": "1" * 501}, True),
        ("calculate", {"expression": None}, False),
        ("calculate", {}, False),
        ("think", {"expression": "9**9"}, False),
    ],
)
def test_powers_and_very_long_expressions_may_never_end(name: str, arguments: dict[str, object], can: bool) -> None:
    assert can_hold(name, arguments) is can


def test_what_a_fork_gives_comes_back_and_what_it_changes_is_lost() -> None:
    kept: list[int] = []

    def run() -> dict[str, object]:
        kept.append(1)
        return {"content": "τ² 42", "pid": os.getpid()}

    found = in_fork(run)
    assert (found["content"], kept) == ("τ² 42", [])
    assert not psutil.pid_exists(found["pid"]), "it was waited for"


def test_a_fork_that_dies_was_held() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(Held):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert set(psutil.Process().children()) <= before
