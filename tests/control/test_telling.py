"""A run's status in words: which run, how it is, what it waits for, and what to type next."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.control import watching
from tau2_fleet.control.command import main
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, ProviderRequests, State, Status, Verb
from tau2_fleet.control.remains import _ago
from tau2_fleet.control.telling import facts, headline, next_step
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.snapshot import DomainCounters, RunSnapshot

RUN = Path("/runs/one")


def a_status(state: State, done: int = 1, errors: int = 0, **fields: Any) -> Status:
    shown = RunSnapshot({}, DomainCounters(2, done=done, errors=errors))
    return Status(state, "it is at it", "here", 7, shown=shown, **fields)


def test_the_headline_names_the_process_of_a_run_that_goes_on() -> None:
    assert headline(RUN, a_status(State.running)).plain == "/runs/one: running (process 7 on here): it is at it"
    assert headline(RUN, a_status(State.ended)).plain == "/runs/one: ended: it is at it"
    assert headline(RUN, Status(State.paused)).plain == "/runs/one: paused"
    styles = {state: [str(span.style) for span in headline(RUN, a_status(state)).spans] for state in State}
    assert styles[State.running] == ["green"]
    assert styles[State.hangs] == styles[State.died] == ["bold red"]


def test_facts_are_told_as_far_as_there_are_any() -> None:
    assert list(facts(a_status(State.starting))) == []
    found = a_status(
        State.running, max_concurrency=8, auto=True, queued=5, requests=3, log_level="INFO", lag_s=7.0,
        stack=("a call", "another"), by_hand=("pause",), held=2, withdrawn=1,
        providers={"openai": ProviderRequests(4, 2, 10.0), "other": ProviderRequests(1, 0, None)},
    )  # fmt: skip
    assert [text.plain for text in facts(found)] == [
        "at most 8 in flight (auto), 5 queued, 1 taken out; requests at the servers: 3, 2 held back; log_level INFO",
        "openai: 4 requests, 2 waiting, at most 10",
        "other: 1 requests, 0 waiting, no limit known",
        "the event loop has stood still for 7 s:",
        "  a call",
        "  another",
        "by hand: pause",
    ]
    [plain] = facts(a_status(State.running, max_concurrency=8))
    assert plain.plain.startswith("at most 8 in flight (set), 0 queued; requests at the servers: 0; ")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (a_status(State.died), "run resume=/runs/one"),
        (a_status(State.unbegun, done=2), "run resume=/runs/one"),
        (a_status(State.ended), "run resume=/runs/one"),
        (a_status(State.ended, done=2, errors=1), "run resume=/runs/one"),
        (a_status(State.ended, done=2), "show /runs/one"),
        (a_status(State.paused), "ctl resume /runs/one"),
        (a_status(State.running), None),
        (a_status(State.hangs), None),
    ],
)
def test_what_to_type_next_follows_from_how_it_is(found: Status, told: str | None) -> None:
    said = next_step(RUN, found)
    assert (said is None) == (told is None)
    assert said is None or told is None or said.endswith(told)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_times_are_told_in_a_unit_that_fits(seconds: float, told: str) -> None:
    assert _ago(seconds) == told


@pytest.mark.parametrize(
    ("state", "lag_s", "status"),
    [
        (State.running, 0.0, 0),
        (State.running, 1.0, 3),
        (State.hangs, 0.0, 3),
        (State.died, 0.0, 3),
        (State.ended, 0, 0),
    ],
)
def test_a_status_is_shown_whole_and_a_bad_one_is_the_exit_status(
    state: State, lag_s: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "control.json").touch()
    monkeypatch.setattr("tau2_fleet.control.client.status", lambda _: a_status(state, lag_s=lag_s, max_concurrency=8))
    assert main(["status", str(tmp_path)]) == status
    shown = capsys.readouterr().out
    for part in (f": {state}", "1/2", "at most 8 in flight"):
        assert part in shown
    assert ("elapsed" in shown) == (state is not State.ended)
    assert ("resume=" in shown) == (state in (State.ended, State.died))


def test_ten_lines_of_an_answer_are_told_without_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "control.json").touch()
    said = tuple(f"line {number}" for number in range(10))
    monkeypatch.setattr("tau2_fleet.control.client.ask", lambda *_: ControlAnswer(True, said))
    assert main(["pause", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == list(said)


def test_a_run_is_watched_line_by_line_where_nothing_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([a_status(State.running), a_status(State.running), a_status(State.paused), a_status(State.ended)])
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += 20.0

    monkeypatch.setattr("tau2_fleet.control.client.status", lambda _: next(looks))
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert watching.watch(RUN).state is State.ended
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in told] == ["running", "paused"], "a line every half a minute"
    assert "progress 1/2" in told[0]
    assert slept == [0.5] * 3


@pytest.mark.parametrize(
    "value",
    [[], {"do": "fly"}, {"do": "pause", "more": 1}, {"do": "cancel", "task": 5}, {"do": "cancel", "trial": "1"},
     {"do": "set", "key": [1]}, {}],
)  # fmt: skip
def test_what_is_no_request_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ControlRequest.of(value)


def test_requests_and_states_come_back_as_they_went() -> None:
    asked = {"do": "cancel", "task": "1", "trial": 2, "every": False, "key": "", "value": ""}
    assert ControlRequest.of(asked) == ControlRequest(Verb.cancel, "1", 2)
    assert ControlRequest.of({"do": "set", "key": None}).do is Verb.set
    assert {state for state in State if not state.live} == {State.died, State.ended, State.unbegun}


def test_a_key_that_a_run_can_change_takes_what_it_may_be() -> None:
    from tau2_fleet.control.settable import concurrency, set_timeout

    assert (concurrency("auto"), concurrency("1"), concurrency("100000")) == (None, 1, 100_000)
    for value in ("0", "100001", "-1", "²", "x"):
        with pytest.raises(UserError, match="must be auto or a number"):
            concurrency(value)
    heard: list[float | None] = []
    runner: Any = SimpleNamespace(limits=SimpleNamespace(began_s=time.monotonic() - 50.0))
    runner.set_run_timeout = heard.append
    assert set_timeout(runner, "null") == "the run ends when it is through"
    assert set_timeout(runner, "60") == "the run ends 60 s after it began"
    for value in ("0", "-1", "inf", "nan", "x"):
        with pytest.raises(UserError, match="must be seconds above 0"):
            set_timeout(runner, value)
    with pytest.raises(UserError, match=r"the run is 5\d s old"):
        set_timeout(runner, "49")
    assert heard == [None, 60.0]
