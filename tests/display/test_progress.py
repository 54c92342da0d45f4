"""The progress display: what it counts, and what a terminal and a pipe see of it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tau2_fleet.display.progress import Mode, Progress, mode_for
from tau2_fleet.telemetry.events import ReplicaSample, ReplicaState, StepComplete, emit, subscribe
from tau2_fleet.telemetry.levels import INFO, PROFILE, WARNING
from tau2_fleet.telemetry.replica_counters import RATE_WINDOW_S
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.snapshot import InFlight
from tests.telemetry.earlier import Earlier
from tests.telemetry.events_of import llm_call, simulation
from tests.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stored(domain: str, task_id: str, reward: float, reason: str = "user_stop") -> Earlier:
    return Earlier((domain, task_id, 0), reward, reason)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> Iterator[RunCounters]:
    counters = RunCounters({"retail": 4, "airline": 2}, clock=clock)
    leave = subscribe(counters.listen)
    yield counters
    leave()


def test_done_passed_in_flight_and_errors_are_counted_per_domain_and_overall(
    counters: RunCounters, clock: Clock
) -> None:
    for task in ("1", "2", "3"):
        counters.started(("retail", task, 0))
    counters.started(("airline", "1", 0))
    clock.now += 10
    counters.finished(("retail", "1", 0), 1.0, "user_stop", 0.5)
    counters.finished(("retail", "2", 0), 0.0, "infrastructure_error", 0.0)
    retail, overall = counters.domains["retail"], counters.overall()
    assert (retail.done, retail.passed, retail.errors, retail.in_flight, retail.pass_1) == (2, 1, 1, 1, 0.5)
    assert (overall.done, overall.total, overall.in_flight) == (2, 6, 2)
    assert counters.domains["airline"].pass_1 is None
    assert counters.eta_s() == pytest.approx(11.0)  # two of ten seconds, and two that are overdue, two at once


def test_a_resumed_run_counts_what_was_done_but_not_in_the_pace(clock: Clock) -> None:
    earlier = [stored("retail", str(number), reward=number % 2) for number in range(6)]
    counters = RunCounters({"retail": 10}, earlier, clock)
    assert counters.overall().pass_1 == 0.5
    assert counters.eta_s() is None
    counters.started(("retail", "9", 0))
    clock.now += 5
    counters.finished(("retail", "9", 0), 1.0, "user_stop", 0)
    assert counters.overall().done == 7
    assert counters.eta_s() == pytest.approx(15.0)


def test_what_a_resumed_run_had_cost_counts_and_an_error_until_its_repetition_is_stored(clock: Clock) -> None:
    earlier = [stored("retail", "1", 1.0), stored("retail", "2", 0.0, "infrastructure_error")]
    counters = RunCounters({"retail": 3, "airline": 1}, earlier, clock)
    retail = counters.domains["retail"]
    assert (retail.done, retail.errors, retail.pass_1) == (1, 1, 0.5)
    assert (counters.cost_usd, counters.input_tokens, counters.output_tokens) == (1.0, 2000, 20)
    leave = subscribe(counters.listen)
    counters.started(("retail", "2", 0))
    emit(llm_call(cost_usd=0.25, input_tokens=300, output_tokens=7))
    leave()
    assert (counters.cost_usd, retail.errors) == (1.25, 1)
    counters.finished(("retail", "2", 0), 1.0, "user_stop", 0.25)
    assert (retail.done, retail.errors, retail.pass_1) == (2, 0, 1.0)
    assert (counters.cost_usd, counters.input_tokens, counters.output_tokens) == (0.75, 1300, 17)
    counters.finished(("retail", "2", 0), 1.0, "user_stop", 0.25)
    assert counters.cost_usd == 0.75, "a record is taken away once"


def test_tokens_per_second_are_those_of_each_replica_lately(counters: RunCounters, clock: Clock) -> None:
    for _ in range(30):
        clock.now += 1
        emit(llm_call(replica="agent/0", output_tokens=100))
        emit(llm_call(replica="agent/1", output_tokens=10))
    assert counters.replicas["agent/0"].tokens_per_s(clock.now, counters.began_s) == pytest.approx(100, rel=0.1)
    assert counters.replicas["agent/1"].tokens_per_s(clock.now, counters.began_s) == pytest.approx(10, rel=0.1)
    clock.now += RATE_WINDOW_S + 1
    assert counters.replicas["agent/0"].tokens_per_s(clock.now, counters.began_s) == 0
    assert counters.output_tokens == 3300


def test_the_simulation_heard_from_least_lately_and_what_it_waits_for_are_named(
    counters: RunCounters, clock: Clock
) -> None:
    for task in ("1", "2", "3"):
        counters.started(("retail", task, 0))
        clock.now += 1
    with simulation("retail", "1"):
        emit(StepComplete(5.0, "agent", "env", 1))
    clock.now += 40
    with simulation("retail", "3"):
        emit(llm_call())
    counters.finished(("retail", "2", 0), 1.0, "user_stop", 0)
    assert counters.idle_longest(5) == [
        InFlight("retail", "1", 0, 40.0, "agent", 1),
        InFlight("retail", "3", 0, 0.0, "user", 0),
    ]


def test_the_display_follows_the_level_and_the_terminal() -> None:
    assert mode_for(INFO, terminal=True) is Mode.live
    assert mode_for(INFO, terminal=False) is Mode.plain
    assert mode_for(PROFILE, terminal=True) is Mode.plain
    assert mode_for(WARNING, terminal=True) is Mode.off


def test_without_a_terminal_each_simulation_is_a_line_and_a_large_run_is_bounded() -> None:
    text = io.StringIO()
    console = Console(file=text, soft_wrap=True)
    five = [stored("retail", f"earlier {number}", 1.0) for number in range(5)]
    with Progress({"retail": 1005}, five, console=console) as progress:
        for number in range(3):
            progress.started("retail", f"[bold]{number}\x1b", 0)
            progress.finished("retail", f"[bold]{number}\x1b", 0, 1.0, "user_stop", 0.0125)
        wait_for(lambda: "[8/1005]" in text.getvalue())
        for number in range(997):
            progress.finished("retail", str(number), 1, float(number % 2), "user_stop", 0.0)
    lines = text.getvalue().splitlines()
    assert re.fullmatch(r"\[6/1005\] retail/\[bold\]0\\x1b #0 reward 1 user_stop \d\.\d s \$0\.0125", lines[0])
    assert len(lines) < 200
    assert any(re.search(r"and \d+ more finished, \d+ with reward 1$", line) for line in lines)
    assert lines[-1].startswith("progress 1005/1005 pass^1 0.50 in flight 0 errors 0")


def test_what_is_left_of_many_is_told_in_one_line_with_those_that_succeeded() -> None:
    text = io.StringIO()
    with Progress({"retail": 20}, console=Console(file=text, soft_wrap=True), heartbeat_s=60) as progress:
        for number in range(15):
            progress.finished("retail", str(number), 0, (1.0, 0.0, None)[number % 3], "user_stop", 0.0)
        progress.counters.started(("retail", "19", 0))
    *lines, more, last = text.getvalue().splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"[{number}/20]" for number in range(1, 11)]
    assert " reward - user_stop" in lines[2]
    assert more == "[15/20] and 5 more finished, 1 with reward 1"
    assert last.startswith("progress 15/20 pass^1 0.33 in flight 1")


def test_a_run_in_which_nothing_happens_says_nothing_before_its_heartbeat() -> None:
    text = io.StringIO()
    with Progress({"retail": 5}, [stored("retail", "1", 1.0)], console=Console(file=text), heartbeat_s=60) as progress:
        plain = progress._plain
        assert plain is not None
        assert plain._thread.daemon, "a reader that never reads holds up no end of the program"
    assert not plain._thread.is_alive()
    assert text.getvalue() == "", "all that is done was done before"


def test_without_a_terminal_there_is_a_heartbeat() -> None:
    text = io.StringIO()
    with Progress({"retail": 5}, console=Console(file=text, soft_wrap=True), heartbeat_s=0.05) as progress:
        progress.started("retail", "1", 0)
        wait_for(lambda: text.getvalue().count("progress 0/5 pass^1 - in flight 1") >= 2)


def test_the_heartbeat_says_what_has_been_idle_longest_and_on_what(clock: Clock) -> None:
    text = io.StringIO()
    progress = Progress({"retail": 5}, console=Console(file=text, soft_wrap=True), heartbeat_s=0.05)
    progress.counters.clock = clock
    with progress:
        progress.started("retail", "1", 0)
        clock.now += 42
        wait_for(lambda: "\n" in text.getvalue())
    beat = text.getvalue().splitlines()[0]
    assert beat.startswith("progress 0/5 pass^1 - in flight 1")
    assert beat.endswith("ETA -:-- waiting longest: retail/1 #0 42 s for user")


def test_a_reader_that_left_does_not_end_the_run(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tau2_fleet.telemetry.logs import setup\n"
        "from tau2_fleet.display.progress import Progress\n"
        "with setup(Path(sys.argv[1]), 15) as logs, Progress({'retail': 40}, heartbeat_s=0.01) as progress:\n"
        "    for number in range(40):\n"
        "        progress.started('retail', str(number), 0)\n"
        "        progress.finished('retail', str(number), 0, 1.0, 'user_stop', 0)\n"
        "        logs.line(15, '[PROFILE] a line')\n"
        "        logs.flush()\n"
        "        sys.stdin.read(1)\n"
        "Path(sys.argv[1], 'over').write_text(str(progress.counters.overall().done))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"x" * 40)
    process.stdin.close()
    assert process.wait() == 0
    assert (tmp_path / "over").read_text() == "40"


_ON_A_TERMINAL = """
import logging, sys
from pathlib import Path
from tau2_fleet.telemetry.events import EventBus, ReplicaSample, ReplicaState, emit, subscribe
from tau2_fleet.telemetry.logs import setup
from tau2_fleet.display.progress import Progress
with EventBus().in_use(), setup(Path(sys.argv[1]), 20), Progress({"retail": 3, "airline": 1}) as progress:
    subscribe(progress.listen)
    emit(ReplicaState("agent/0", "ready"))
    emit(ReplicaSample("agent/0", 2, 1, 0.25, 0, 0, 0, 0))
    progress.started("retail", "1", 0)
    progress.started("retail", "2", 0)
    progress.finished("retail", "1", 0, 1.0, "user_stop", 0.01)
    logging.getLogger("tau2_fleet.fleet").warning("a replica is slow")
print("the summary")
"""


def test_on_a_terminal_there_is_a_bar_per_domain_and_one_overall(tmp_path: Path) -> None:
    screen = _on_terminal([sys.executable, "-c", _ON_A_TERMINAL, str(tmp_path)])
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    for wanted in (
        r"retail\s+━+\S*\s+1/3\s+pass\^1 1\.00\s+in flight 1\s+errors 0",
        r"airline\s+━+\s+0/1\s+pass\^1\s+-\s+in flight 0",
        r"all\s+━+\S*\s+1/4",
        r"elapsed 0:0\d\s+ETA 0:0\d\s+cost \$0\.0000",
        r"agent/0\s+ready\s+2 running, 1 waiting\s+0 tok/s\s+KV 25%",
    ):
        assert re.search(wanted, last), (wanted, last)
    assert last.count("warning: a replica is slow") == 1
    assert last.index("warning: a replica is slow") < last.rindex("retail")
    assert last.rstrip().endswith("the summary")


def _on_terminal(command: list[str]) -> str:
    """What a command writes to a terminal 100 columns wide."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    assert process.wait() == 0
    return b"".join(chunks).decode()


def test_thousands_in_flight_cost_no_more_to_draw_than_ten() -> None:
    def seconds(in_flight: int) -> float:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        progress = Progress({"retail": in_flight, "airline": in_flight}, mode=Mode.live, console=console)
        leave = subscribe(progress.listen)
        for number in range(in_flight):
            progress.started("retail", str(number), 0)
        for name in ("agent/0", "agent/1"):
            emit(ReplicaState(name, "ready"))
            emit(ReplicaSample(name, 5, 0, 0.5, 0, 0, 0, 0))
        best = float("inf")
        with progress:
            assert progress._live is not None
            for _ in range(5):
                before = time.thread_time()
                progress._live.refresh()
                best = min(best, time.thread_time() - before)
        leave()
        return best

    few, many = seconds(10), seconds(5000)
    assert many < few * 3 + 0.002
    assert many < 0.025, "two refreshes a second take at most 5% of a core"


def test_the_eta_knows_how_long_what_is_left_is(clock: Clock) -> None:
    keys = [("retail", str(number), 0) for number in range(4)]
    lengths = dict(zip(keys, (1.0, 1.0, 1.0, 9.0), strict=True))
    counters = RunCounters({"retail": 4}, clock=clock, lengths=lengths)
    for key in keys[:2]:
        counters.started(key)
    clock.now += 10
    for key in keys[:2]:
        counters.finished(key, 1.0, "user_stop", 0.0)
    counters.started(keys[2])
    assert counters.eta_s() == pytest.approx(100.0)  # ten units of ten seconds, one after the other
    counters.started(keys[3])
    assert counters.eta_s() == pytest.approx(90.0)  # side by side: the longer one
    clock.now += 30
    counters.finished(keys[2], 1.0, "user_stop", 0.0)
    assert 55 < (counters.eta_s() or 0) < 170


def test_a_run_that_stops_promises_no_time(counters: RunCounters, clock: Clock) -> None:
    counters.started(("retail", "1", 0))
    clock.now += 5
    counters.finished(("retail", "1", 0), 1.0, "user_stop", 0.0)
    assert counters.eta_s() is not None
    counters.stopping = True
    assert counters.eta_s() is None


def test_at_the_end_those_in_flight_are_named_with_their_step(clock: Clock) -> None:
    counters = RunCounters({"retail": 2}, clock=clock)
    counters.started(("retail", "1", 0))
    assert counters.last_ones(6) == []
    counters.started(("retail", "2", 0))
    with simulation("retail", "2"):
        for sender, receiver in (("user", "agent"), ("agent", "env")):
            counters.listen(StepComplete(step=1, total_duration_ms=1.0, from_role=sender, to_role=receiver))
    assert [(one.task_id, one.steps, one.waits_for) for one in counters.last_ones(6)] == [
        ("1", 0, "user"),
        ("2", 2, "agent"),
    ]
    assert counters.last_ones(1) == []


def test_bars_are_drawn_at_once_and_not_through_what_others_print() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    before = sys.stdout, sys.stderr
    with Progress({"retail": 4}, mode=Mode.live, console=console) as progress:
        live = progress._live
        assert live is not None
        assert "retail" in console.file.getvalue()  # type: ignore[attr-defined]
        assert (sys.stdout, sys.stderr) == before
        assert live.is_started
        assert live.refresh_per_second == 2
    assert not live.is_started


def test_of_many_replicas_the_first_are_shown_and_the_others_summed() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    progress = Progress({"retail": 4}, mode=Mode.live, console=console)
    leave = subscribe(progress.listen)
    for number in range(10):
        emit(ReplicaState(f"agent/{number}", "ready" if number < 9 else "loading"))
        emit(ReplicaSample(f"agent/{number}", number, 2, 0.25, 0, 0, 0, 0))
    with progress:
        assert progress._live is not None
        progress._live.refresh()
    leave()
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue())
    assert "agent/7" in shown
    assert "agent/8" not in shown
    assert re.search(r"agent/3 +ready +3 running, 2 waiting .* KV 25%", shown)
    assert re.search(r"2 more +1 ready +17 running", shown)
