"""What a tracker is told at a run's start and while it goes on, what it says back, and what of a run reaches W&B."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tau2_fleet.fleet.reaper.processes import identify
from tau2_fleet.telemetry.events import GpuSample, ReplicaSample, ToolCallDone, emit, subscribe
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking import process as process_module
from tau2_fleet.tracking import tracker as tracker_module
from tau2_fleet.tracking.live_metrics import LiveMetrics
from tau2_fleet.tracking.mode import has_key, mode_of, resolve_mode
from tau2_fleet.tracking.process import TrackerService
from tau2_fleet.tracking.sink import SinkStarted
from tau2_fleet.tracking.sinks import wandb as wandb_sink
from tau2_fleet.tracking.start import TrackedRun, first_message, plain_json
from tau2_fleet.tracking.tracker import Tracker
from tau2_fleet.tracking.wandb_tables import durations_ms, flat_summary, simulations_table
from tests.telemetry.events_of import llm_call
from tests.telemetry.run_directory import write_run
from tests.tracking.useless_wandb import wandb_at


def test_a_run_is_told_with_its_names_and_without_what_is_too_long(tmp_path: Path) -> None:
    run = TrackedRun("/models/m/", ("retail", "mock"), {"a": (Path("x"), {1: None})}, "sweep", title="seed=1")
    told = first_message(run, WandbSettings(tags=["t" * 65, "", "m"]), WandbMode.offline, tmp_path, 20.0)
    assert (told["kind"], told["mode"], told["run_dir"]) == ("start", "offline", str(tmp_path))
    assert (told["name"], told["group"], told["job_type"]) == ("m retail+mock seed=1", "sweep", "evaluation")
    assert told["tags"] == ["t" * 64, "m", "retail", "mock"]
    assert told["config"] == {"a": ["x", {"1": None}]}
    assert (told["finish_timeout_s"], told["transcripts"], told["key_files"]) == (15.0, False, [])
    own = WandbSettings(name="n", group="g")
    assert first_message(run, own, WandbMode.online, tmp_path, 3.0)["finish_timeout_s"] == 1
    assert [first_message(run, own, WandbMode.online, tmp_path, 3.0)[key] for key in ("name", "group")] == ["n", "g"]
    assert len(TrackedRun("m", ("d" * 200,), {}).name) == 128
    files = TrackedRun("m", (), {"server.api_key_file": "~/key", "x.api_key_file": None, "api_key_env": "K"}).key_files
    assert files == [str(Path("~/key").expanduser().resolve())]
    assert plain_json({2: {True, 1.5}}) in ({"2": [True, 1.5]}, {"2": [1.5, True]})


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "own"
    file.write_text("machine wandb.here login user password abc\n")
    file.chmod(0o600)
    there = {"HOME": str(tmp_path), "NETRC": str(file)}
    assert not has_key(there)
    assert has_key({**there, "WANDB_BASE_URL": "https://wandb.here:8080/x"})
    assert not has_key({"HOME": str(tmp_path), "WANDB_BASE_URL": "https://wandb.here"})
    file.write_text("machine\n")
    assert not has_key({**there, "WANDB_BASE_URL": "https://wandb.here"})


def test_wandb_mode_is_heeded_and_a_tracker_of_ones_own_is_online(tmp_path: Path) -> None:
    keyed = {"HOME": str(tmp_path), "WANDB_API_KEY": "k"}
    for told, mode in (("offline", WandbMode.offline), ("dryrun", WandbMode.offline), ("online", WandbMode.online)):
        assert resolve_mode(WandbMode.auto, {**keyed, "WANDB_MODE": told}) is mode
    assert resolve_mode(WandbMode.online, keyed) is WandbMode.online
    assert resolve_mode(WandbMode.offline, keyed) is WandbMode.offline
    own = WandbSettings(sink={"_target_": "mine.Sink"})
    assert mode_of(own, {}) is WandbMode.online
    assert mode_of(WandbSettings(sink=own.sink, mode=WandbMode.disabled), {}) is WandbMode.disabled
    assert mode_of(WandbSettings(), {"HOME": str(tmp_path)}) is WandbMode.offline


def test_the_running_numbers_of_servers_are_charted_as_far_as_they_are_known() -> None:
    counters = RunCounters({"retail": 4, "mock": 1})
    metrics = LiveMetrics(counters)
    leaves = [subscribe(counters.listen), subscribe(metrics.listen)]
    counters.started(("retail", "1", 0))
    emit(llm_call(replica="agent/1", input_tokens=100, output_tokens=50, cost_usd=0.25))
    emit(ReplicaSample("agent/0", 3, 1, 0.4, 0, 0, 0, 0))
    emit(GpuSample(1, 0.5, 2**30, 2**31, host="node"))
    counters.replies["agent", "cut"] += 2
    counters.finished(("retail", "1", 0), 0.0, "infrastructure_error", 0.1)
    time_before = metrics._snapshot_at
    values = metrics.snapshot()
    for leave in leaves:
        leave()
    assert (values["in_flight"], values["errors"], values["finished"]) == (0, 1, 1)
    assert (values["tokens/input"], values["tokens/output"], values["cost_usd"]) == (100, 50, 0.25)
    assert values["tokens/output_per_s"] == pytest.approx(50 / max(metrics._snapshot_at - time_before, 1e-3))
    assert (values["replica/agent/0/running"], values["replica/agent/0/waiting"]) == (3, 1)
    assert "replica/agent/1/running" not in values
    assert values["replica/agent/1/output_per_s"] > 0
    assert (values["gpu/node/1/use"], values["gpu/node/1/memory_gib"]) == (0.5, 1.0)
    assert (values["replies/agent/cut"], values["done/retail"], values["done/all"]) == (2, 1, 1)
    assert "pass_1/mock" not in values, "nothing of it is over"
    assert values["elapsed_s"] > 0
    assert metrics.snapshot()["tokens/output_per_s"] == 0


class Sink:
    """A tracker in this process, which says what it is told to say."""

    def __init__(self, started: SinkStarted | None = None, problem: str | None = None) -> None:
        self.said: list[Any] = []
        self.started, self.problem = started, problem

    def start(self, run: Any) -> SinkStarted | None:
        self.said.append(("start", run.name, run.run_dir))
        return self.started

    def log(self, values: Any) -> None:
        self.said.append(("log", values))

    def finish(self, summary: Any, exit_code: int) -> str | None:
        self.said.append(("finish", summary, exit_code))
        return self.problem


def served(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *kinds: str) -> list[dict[str, Any]]:
    """The replies to some messages."""
    monkeypatch.setattr(process_module, "make", lambda *_: sink)
    first = first_message(TrackedRun("m", (), {}), WandbSettings(), WandbMode.online, tmp_path, 9.0)
    messages = {
        "start": first,
        "log": {"kind": "log", "values": {"a": 1}},
        "finish": {"kind": "finish", "summary": {"b": 2}, "exit_code": 3},
        "odd": {"kind": "odd"},
    }
    replies = io.BytesIO()
    service = TrackerService(replies)
    for kind in kinds:
        service.handle(messages[kind])
    return [orjson.loads(line) for line in replies.getvalue().splitlines()]


def test_a_tracker_is_served_in_order_and_its_words_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink(SinkStarted("online", "http://there", "a\nproblem"), "too  late")
    replies = served(sink, tmp_path, monkeypatch, "log", "start", "log", "odd", "finish")
    assert sink.said == [("start", "m", tmp_path), ("log", {"a": 1}), ("finish", {"b": 2}, 3)]
    assert replies == [
        {"kind": "made"},
        {"kind": "problem", "text": "a problem"},
        {"kind": "started", "mode": "online", "url": "http://there"},
        {"kind": "problem", "text": "odd: KeyError: 'odd'"},
        {"kind": "problem", "text": "too late"},
        {"kind": "finished"},
    ]
    quiet = served(Sink(), tmp_path, monkeypatch, "start", "finish")
    assert quiet == [{"kind": "made"}, {"kind": "started", "mode": "offline", "url": None}, {"kind": "finished"}]
    assert served(Sink(), tmp_path, monkeypatch, "finish") == [{"kind": "finished"}]
    [_, problem, *_] = served(Sink(SinkStarted("x", None, "p" * 2000)), tmp_path, monkeypatch, "start")
    assert len(problem["text"]) == 1000


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    settings = WandbSettings(mode=WandbMode.offline)
    return Tracker(settings, tmp_path, TrackedRun("m", (), {}), RunCounters({}), environment={})


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"finished": 1, "started": 1, "mode": "online", "url": "http://x"}, "W&B: http://x"),
        ({"finished": 1, "started": 1, "mode": "online", "problem": "no"}, "W&B: not completed (no); SYNC"),
        ({"finished": 1, "started": 1, "mode": "offline"}, "W&B: kept offline; SYNC"),
        ({"finished": 1, "started": 1, "mode": "offline", "problem": "no"}, "W&B: kept offline (no); SYNC"),
        ({"started": 1, "mode": "offline"}, "W&B: not completed (the upload took too long); SYNC"),
        ({"finished": 1, "problem": "no"}, "W&B: nothing recorded (no)"),
        ({}, "W&B: nothing recorded (it did not start in time)"),
    ],
)
def test_how_a_mirror_ended_is_said_with_what_to_do(about: dict[str, Any], told: str, tracker: Tracker) -> None:
    child = tracker._child
    for name, value in about.items():
        if name in ("finished", "started"):
            getattr(child, name).set()
        else:
            setattr(child, name, value)
    assert tracker._message() == told.replace("SYNC", f"upload it with: wandb sync {tracker._run_dir / 'wandb'}")
    kept = about.get("mode") == "offline" and "finished" in about and "problem" not in about
    assert tracker.kept_offline == kept
    tracker.abandon()
    assert child.finished.is_set()
    assert child.problem == about.get("problem", "interrupted")


def test_a_tracker_of_ones_own_says_where_it_is(tmp_path: Path) -> None:
    own = WandbSettings(sink={"_target_": "mine.Sink"})
    one = Tracker(own, tmp_path, TrackedRun("m", (), {}), RunCounters({}), environment={})
    assert one._message() == "Sink: not completed (it took too long)"
    one._child.finished.set()
    assert one._message() == "Sink: done"
    assert not one.kept_offline
    one._child.url = "http://x"
    assert one._message() == "Sink: http://x"
    one._child.problem = "no"
    assert one._message() == "Sink: not completed (no)"


def test_replies_of_the_process_are_taken_as_they_are_meant(tracker: Tracker) -> None:
    def heard(status: int, *replies: dict[str, Any]) -> Any:
        tracker._child = type(tracker._child)()
        process: Any = SimpleNamespace(
            stdout=[json.dumps(reply).encode() for reply in replies], wait=lambda: status, returncode=status
        )
        tracker._read(process)
        assert tracker._child.made.is_set()
        assert tracker._child.finished.is_set()
        return tracker._child

    child = heard(0, {"kind": "beat"}, {"kind": "beat"}, {"kind": "started", "mode": "online", "url": "u"})
    assert (child.beats, child.started.is_set(), child.mode, child.url, child.problem) == (2, True, "online", "u", None)
    assert heard(7).problem == "its process ended with status 7"
    assert heard(7, {"kind": "finished"}).problem is None
    child = heard(7, {"kind": "problem", "text": "one"}, {"kind": "problem", "text": "two"})
    assert child.problem == "one"
    child = heard(0, {"kind": "refused", "text": "no such"})
    assert (child.refusal, child.problem, child.started.is_set()) == ("no such", "no such", False)


def test_a_wait_ends_at_its_limit_and_at_once_where_all_is_done(tracker: Tracker) -> None:
    tracker._finish_timeout_s = 0.0
    tracker._await_end()
    assert tracker._child.problem is None, "too long is no standing still"
    tracker._finish_timeout_s = 60.0
    tracker._child.finished.set()
    began = time.monotonic()
    tracker._await_end()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("does", "limit_s", "problem"),
    [("while True: pass", 1.0, None), ("import time; time.sleep(600)", 60.0, "its process stands still")],
)
def test_a_process_that_a_busy_machine_keeps_waiting_does_not_stand_still(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, does: str, limit_s: float, problem: str | None
) -> None:
    monkeypatch.setattr(tracker_module, "SILENCE_S", 0.3)
    tracker._finish_timeout_s = limit_s
    command = [sys.executable, "-S", "-c", f"print('up', flush=True)\n{does}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tracker._leader = identify(process.pid)
        tracker._await_end()
        process.kill()
    assert tracker._child.problem == problem


def test_a_wandb_that_answers_anything_is_there() -> None:
    with wandb_at("refuses") as url:
        assert wandb_sink.answers(url, 10.0)
    assert not wandb_sink.answers("http://127.0.0.1:1", 10.0)
    assert not wandb_sink.answers("no address", 10.0)
    assert wandb_sink._first_line(ValueError("one\ntwo")) == "one"
    assert wandb_sink._first_line(ValueError()) == ""


def test_the_table_and_the_durations_are_those_of_the_run_directory(tmp_path: Path) -> None:
    made = write_run(tmp_path)
    table = simulations_table(tmp_path, transcripts=True)
    assert table.columns[-1] == "transcript"
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert len(rows) == len(made.records)
    for row, record in zip(rows, made.records, strict=True):
        messages = record["messages"]
        assert (row["messages"], row["trial"], row["seed"]) == (len(messages), record["trial"], record["seed"])
        assert row["tool_calls"] == sum(len(message.get("tool_calls") or ()) for message in messages)
        assert row["cost_usd"] == pytest.approx(sum(record["cost_by_role"].values()))
        assert (row["duration_s"], row["error"]) == (record["duration_s"], record["error"])
        first = messages[0]
        assert row["transcript"].startswith(f"{first['role']}: {first['content']}")
    calls = [message for record in made.records for message in record["messages"] if message.get("tool_calls")]
    name, arguments = calls[0]["tool_calls"][0]["name"], calls[0]["tool_calls"][0]["arguments"]
    assert f" [{name} {orjson.dumps(arguments).decode()}]" in "".join(row["transcript"] for row in rows)
    with (tmp_path / "profile.jsonl").open("ab") as file:
        file.write(b'[]\nno json\n{"x": 1}\n{"type": "odd", "duration_ms": "long"}\n')
    durations = durations_ms(tmp_path)
    expected = [event.duration_ms for event in made.events if isinstance(event, ToolCallDone)]
    assert sorted(durations["tool_call"]) == pytest.approx(sorted(expected))
    assert len(durations["step_complete"]) > 0
    assert "odd" not in durations
    assert flat_summary({"a": True, "b": [1, "x"], "c": None, "d": "y" * 200}) == {"a": True, "d": "y" * 200}


def test_files_of_one_folder_are_compressed_beside_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 1000)
        packed = wandb_sink._compressed(tmp_path / name, tmp_path / "packed" / "deep" / f"{name}.gz")
        assert gzip.decompress(packed.read_bytes()).decode() == name * 1000
    with wandb_at("refuses") as url:
        asked: list[str] = []
        wandb_sink._within(10.0, lambda: asked.append(url))
        wandb_sink._within(10.0, lambda: asked.remove("nothing"))
    assert asked == [url]
