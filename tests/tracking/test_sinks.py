"""Trackers of one's own, and a W&B that cannot be had: a run's own end never depends on them."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking import tracker as tracker_module
from tau2_fleet.tracking.process import TrackerService
from tau2_fleet.tracking.start import TrackedRun
from tau2_fleet.tracking.tracker import Tracker
from tests.telemetry.run_directory import write_run
from tests.tracking.useless_wandb import wandb_at
from tests.tracking.wandb_reader import artifacts, read_back, summary
from tests.waiting import CEILING_S, all_gone

RUN = TrackedRun("/models/m", ("retail",), {"seed": 300})
SINKS = '''
import os, sys, time
from pathlib import Path

class Lines:
    """Writes what it hears, a line each."""
    def __init__(self, path): self.path = Path(path)
    def write(self, *words):
        with self.path.open("a") as file: print(*words, file=file)
    def start(self, run): self.write("start", run.name, run.config["seed"], run.mode)
    def log(self, values): self.write("log", values["finished"])
    def finish(self, summary, exit_code): self.write("finish", summary, exit_code)

class Broken(Lines):
    """Does one of its methods another way than it should."""
    def __init__(self, path, method, how):
        super().__init__(path)
        def fail(*arguments):
            if how == "raise": raise RuntimeError("out of order")
            if how == "exit": sys.exit(5)
            if how == "die": os._exit(7)
            if how == "stop": os.kill(os.getpid(), 19)
            return object()
        setattr(self, method, fail)
'''


@pytest.fixture
def sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_sinks.py").write_text(SINKS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(tracker_module, "_MADE_S", CEILING_S)
    return tmp_path / "lines"


def tracked(tmp_path: Path, sink: Any, **environment: str) -> tuple[str | None, float]:
    """What is said at the end of a short run, and the seconds that its end took."""
    settings = WandbSettings(mode=WandbMode.auto, sink=sink)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    (tmp_path / "home").mkdir(exist_ok=True)
    kept |= {"HOME": str(tmp_path / "home"), **environment}
    with Tracker(settings, tmp_path / "run", RUN, RunCounters({"retail": 1}), environment=kept, interval_s=0.05) as one:
        began = time.monotonic()
        message = one.finish({"reward": 0.5}, 0)
        return message, time.monotonic() - began


def test_an_own_tracker_hears_of_the_run_from_its_start_to_its_end(tmp_path: Path, sinks: Path) -> None:
    message, _ = tracked(tmp_path, {"_target_": "own_sinks.Lines", "path": str(sinks)})
    assert message == "Lines: done"
    first, *logged, last = sinks.read_text().splitlines()
    assert first == "start m retail 300 online"
    assert set(logged) == {"log 0"}
    assert last == "finish {'reward': 0.5} 0"


@pytest.mark.parametrize("how", ["raise", "exit", "die", "stop", "nonsense"])
@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_whatever_a_tracker_does_the_run_ends_as_it_would(
    tmp_path: Path, sinks: Path, monkeypatch: pytest.MonkeyPatch, method: str, how: str
) -> None:
    if how != "stop":
        monkeypatch.setattr(tracker_module, "SILENCE_S", CEILING_S)  # a busy machine is none that stands still
    sink = {"_target_": "own_sinks.Broken", "path": str(sinks), "method": method, "how": how}
    message, took = tracked(tmp_path, sink)
    assert message is not None
    assert message.startswith("Broken: not completed (") or (method, how) == ("log", "nonsense")
    assert took < 30
    told = {"raise": "RuntimeError: out of order", "exit": "SystemExit: 5", "stop": "its process stands still"}
    assert told.get(how, "") in message


@pytest.mark.parametrize(
    ("sink", "told"),
    [
        ("wandbb", "wandb.sink=wandbb: there is none of this name, only wandb"),
        ({"_target_": "own_sinks.Lines"}, "wandb.sink: own_sinks.Lines failed while it was made: TypeError"),
        ("own_sinks.os.getcwd", "wandb.sink: own_sinks.os.getcwd"),
        ("nowhere.Lines", "wandb.sink: nowhere.Lines cannot be had: ModuleNotFoundError"),
    ],
)
def test_a_tracker_that_cannot_be_made_is_named_before_anything_starts(
    tmp_path: Path, sinks: Path, sink: Any, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        tracked(tmp_path, sink)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["nobody", "silent", "refuses"])
def test_a_wandb_server_that_cannot_be_had_makes_an_online_run_an_offline_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another program's W&B service is in the environment."""
    monkeypatch.setattr(tracker_module, "SILENCE_S", CEILING_S)
    write_run(tmp_path / "run")
    with wandb_at(kind) as url:
        message, _ = tracked(
            tmp_path, "wandb", WANDB_BASE_URL=url, WANDB_API_KEY="k" * 40, WANDB_SERVICE="3-1-tcp-localhost-9-2"
        )
    assert message is not None
    assert message.startswith("W&B: kept offline (cannot go online, ")
    assert message.endswith(f"); upload it with: wandb sync {tmp_path}/run/wandb")
    assert 0.5 in [summary(run).get("reward") for run in read_back(tmp_path / "run")]


@pytest.mark.parametrize("whom", ["process", "service"])
def test_a_frozen_wandb_costs_at_most_ten_seconds_and_leaves_nothing(tmp_path: Path, whom: str) -> None:
    import psutil

    write_run(tmp_path / "run")
    environment = {**os.environ, "HOME": str(tmp_path), "WANDB_API_KEY": ""}
    settings = WandbSettings(mode=WandbMode.offline)
    with Tracker(settings, tmp_path / "run", RUN, RunCounters({"retail": 1}), environment=environment) as tracker:
        assert tracker._child.started.wait(CEILING_S)
        assert tracker._process is not None
        process = psutil.Process(tracker._process.pid)
        everyone = [process, *process.children(recursive=True)]
        os.kill(everyone[whom == "service"].pid, signal.SIGSTOP)
        began = time.monotonic()
        message = tracker.finish({"reward": 0.5}, 0)
        assert time.monotonic() - began < 30
    assert message is not None
    assert message.startswith("W&B: not completed (its process stands still); upload it with: wandb sync ")
    all_gone(one.pid for one in everyone)


def test_a_large_file_is_sent_compressed_and_not_copied(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    profile = tmp_path / "run" / "profile.jsonl"
    profile.write_bytes(profile.read_bytes() * (3_000_000 // profile.stat().st_size))
    message, _ = tracked(tmp_path, "wandb")
    assert message is not None
    sent = artifacts(read_back(tmp_path / "run")[0])["run"]
    assert set(sent) == {"profile.jsonl.gz", "summary.json"}
    assert gzip.decompress(sent["profile.jsonl.gz"].read_bytes()) == profile.read_bytes()
    files = [path for path in (tmp_path / "run" / "wandb").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert json.loads((tmp_path / "run" / "wandb" / "run_id.json").read_text())["step"] > 0


class Heard:
    """A tracker that remembers how it was ended."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def finish(self, summary: dict[str, Any], status: int) -> None:
        self.ends.append(status)


def test_a_tracker_hears_of_a_lost_run_by_a_status_that_no_run_ends_with(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Any] = []

    def timer(*about: Any) -> threading.Thread:
        timers.append(about)
        return threading.Thread()

    monkeypatch.setattr("threading.Timer", timer)
    service, sink = TrackerService(io.BytesIO()), Heard()
    service.orphaned()
    assert (sink.ends, timers) == ([], []), "nothing was begun"
    service._sink = sink  # type: ignore[assignment]
    service.orphaned()
    [status] = sink.ends
    assert status not in {*ExitStatus}
    assert timers == [(10.0, os._exit, (1,))], "a tracker that hangs is left"
