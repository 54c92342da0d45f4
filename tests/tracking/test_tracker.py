"""The W&B mirror: what a real offline run holds when read back with wandb's own reader, and that it harms nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.run.serve import KEY_FILE
from tau2_fleet.telemetry import secrets
from tau2_fleet.telemetry.events import GpuSample, ReplicaSample, StepComplete, emit, subscribe
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking.live_metrics import LiveMetrics
from tau2_fleet.tracking.mode import resolve_mode
from tau2_fleet.tracking.start import TrackedRun
from tau2_fleet.tracking.tracker import Tracker
from tau2_fleet.tracking.wandb_tables import flat_summary, run_files
from tests.telemetry.earlier import Earlier
from tests.telemetry.events_of import llm_call, simulation, tool_call
from tests.telemetry.run_directory import write_run
from tests.tracking.useless_wandb import wandb_at
from tests.tracking.wandb_reader import artifacts, history, of_type, read_back, summary, table
from tests.waiting import CEILING_S, all_gone

RUN = TrackedRun(
    "/models/Nemotron-8B",
    ("retail", "airline"),
    {"seed": 300, "server": {"num": 2, "extra": "key-of-the-fleet-0123"}, "path": Path("x")},
    sweep="sweep-1",
)


def _environment(home: Path, **more: str) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**kept, "HOME": str(home), "OPENAI_API_KEY": "sk-openai-0123456789", **more}


def _mirror(run_dir: Path, home: Path, settings: WandbSettings, summary: dict[str, Any]) -> str | None:
    counters = RunCounters({"retail": 6, "airline": 4})
    with Tracker(settings, run_dir, RUN, counters, environment=_environment(home), interval_s=CEILING_S) as tracker:
        leave = subscribe(tracker.listen)
        for number in range(4):
            with simulation("retail", str(number)):
                emit(llm_call(duration_ms=100.0 * (number + 1)))
            counters.finished(("retail", str(number), 0), float(number % 2), "user_stop", 0.1)
        leave()
        return tracker.finish(summary, 0)


def test_an_offline_run_holds_all_that_is_promised_and_goes_on_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    made = write_run(run_dir)
    monkeypatch.setattr(secrets, "redactor", secrets.Redactor(["key-of-the-fleet-0123"]))
    settings = WandbSettings(tags=["mine"], notes="a note", project="a-project")
    message = _mirror(run_dir, tmp_path / "home", settings, {"retail": {"pass^1": 0.75, "pass^1_ci": [0.5, 0.9]}})
    assert message == f"W&B: kept offline; upload it with: wandb sync {run_dir}/wandb"
    message = _mirror(run_dir, tmp_path / "home", settings, {"retail": {"pass^1": 0.8}})
    first, second = read_back(run_dir)
    (run,) = of_type(first, "run")
    (again,) = of_type(second, "run")
    assert run["run_id"] == again["run_id"]
    assert (run["project"], run["run_group"], run["job_type"]) == ("a-project", "sweep-1", "evaluation")
    assert run["display_name"] == "Nemotron-8B retail+airline"
    assert run["notes"] == "a note"
    assert set(run["tags"]) == {"mine", "Nemotron-8B", "retail", "airline"}
    assert run["config"]["update"] | {"_wandb": 0} == {
        "_wandb": 0, "seed": 300, "server": {"num": 2, "extra": "[redacted]"}, "path": "x",
    }  # fmt: skip

    charted = history(first)
    assert charted[0]["finished"] == 4
    assert charted[0]["pass_1/retail"] == 0.5
    assert charted[0]["latency_ms/llm_call/p50"] == 250
    assert any(
        metric.get("glob_name") == "*" and metric["step_metric"] == "finished" for metric in of_type(first, "metric")
    )
    bins = next(item["profile/llm_call_ms.values"] for item in charted if "profile/llm_call_ms.values" in item)
    assert len(bins) == 64
    assert sum(bins) == sum(getattr(event, "type", None) == "llm_call" for event in made.events)
    told = summary(first)
    assert [told[f"retail/{name}"] for name in ("pass^1", "pass^1_ci/low", "pass^1_ci/high")] == [0.75, 0.5, 0.9]

    steps = [record["step"]["num"] for run in (first, second) for record in of_type(run, "history")]
    assert steps == list(range(len(steps))), "the resumed attempt goes on where the first one ended"

    kept = artifacts(first)["run"]
    assert set(kept) == {"profile.jsonl", "summary.json"}
    assert all(path.is_relative_to(run_dir / "wandb") for path in kept.values())
    rewards = {(row["domain"], row["task_id"]): row["reward"] for row in table(first)}
    assert rewards == {(record["domain"], record["task_id"]): record["reward"] for record in made.records}
    assert all("transcript" not in row for row in table(first))

    for path in (run_dir / "wandb").rglob("*"):
        if path.is_file():
            assert b"sk-openai-0123456789" not in path.read_bytes(), path
    assert list((tmp_path / "home").iterdir()) == [], "wandb's files stay in the run directory"


def test_live_metrics_are_those_of_the_running_numbers() -> None:
    counters = RunCounters({"retail": 4})
    metrics = LiveMetrics(counters)
    leaves = [subscribe(counters.listen), subscribe(metrics.listen)]
    for number in range(101):
        emit(llm_call(duration_ms=float(number), cost_usd=0.5))
        emit(llm_call("user_sim", duration_ms=number + 1000.0, cost_usd=0.0))
        emit(tool_call(duration_ms=number / 10))
        emit(StepComplete(number + 100.0, "agent", "env", number))
    emit(ReplicaSample("agent/0", 3, 1, 0.4, 0, 0, 0, 0))
    emit(GpuSample(0, 0.75, 3 * 2**30, 8 * 2**30))
    counters.finished(("retail", "1", 0), 1.0, "user_stop", 0.1)
    counters.finished(("retail", "2", 0), 0.0, "user_stop", 0.1)
    values = metrics.snapshot()
    assert values["finished"] == 2
    assert values["pass_1/retail"] == values["pass_1/all"] == 0.5
    for kind, expected in (
        ("llm_call", [50, 95, 99]),
        ("user_sim", [1050, 1095, 1099]),
        ("tool_call", [5, 9.5, 9.9]),
        ("step_complete", [150, 195, 199]),
    ):
        assert [values[f"latency_ms/{kind}/p{percent}"] for percent in (50, 95, 99)] == pytest.approx(expected)
    assert values["cost_usd"] == pytest.approx(50.5)
    assert values["replica/agent/0/kv_use"] == 0.4
    assert (values["gpu/0/use"], values["gpu/0/memory_gib"]) == (0.75, 3.0)
    assert values["tokens/output_per_s"] > 0
    later = metrics.snapshot()
    assert not any(name.startswith("latency_ms/") for name in later), "latencies are those since the last snapshot"
    assert later["tokens/output_per_s"] == 0
    for leave in leaves:
        leave()


def test_tokens_per_second_are_of_this_attempt_and_tokens_of_all() -> None:
    counters = RunCounters({"retail": 2}, [Earlier(("retail", "1", 0), 1.0, "user_stop", output_tokens=10_000_000)])
    metrics = LiveMetrics(counters)
    values = metrics.snapshot()
    assert (values["tokens/output"], values["tokens/output_per_s"]) == (10_000_000, 0)


def test_auto_is_online_only_with_a_key_and_heeds_wandb_mode(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert resolve_mode(WandbMode.auto, home) is WandbMode.offline
    assert resolve_mode(WandbMode.auto, {**home, "WANDB_API_KEY": "k" * 40}) is WandbMode.online
    assert resolve_mode(WandbMode.auto, {**home, "WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}) is WandbMode.disabled
    with pytest.raises(UserError, match="WANDB_API_KEY"):
        resolve_mode(WandbMode.online, home)
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password abc\n")
    netrc.chmod(0o600)
    assert resolve_mode(WandbMode.auto, home) is WandbMode.online


def test_disabled_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    with Tracker(WandbSettings(mode=WandbMode.disabled), tmp_path, RUN, RunCounters({})) as tracker:
        assert tracker.finish({}, 0) is None
    assert list(tmp_path.iterdir()) == []


def _stub(tmp_path: Path, body: str, **more: str) -> dict[str, str]:
    """An environment in which `import wandb` gives a package of ours."""
    package = tmp_path / "stub" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    return _environment(tmp_path / "home", PYTHONPATH=str(tmp_path / "stub"), WANDB_API_KEY="k" * 40, **more)


def _with_stub(
    tmp_path: Path, body: str, finish_timeout_s: float = CEILING_S, **more: str
) -> tuple[str | None, float, float]:
    """The message at the end, and seconds that the run and its end took."""
    environment = _stub(tmp_path, body, **more)
    settings = WandbSettings(mode=WandbMode.online)
    begun = time.monotonic()
    with Tracker(
        settings, tmp_path / "run", RUN, RunCounters({"retail": 1}), environment=environment, interval_s=0.01,
        finish_timeout_s=finish_timeout_s,
    ) as tracker:  # fmt: skip
        leave = subscribe(tracker.listen)
        for _ in range(1000):
            emit(llm_call())
        leave()
        ran = time.monotonic() - begun
        message = tracker.finish({"a": 1}, 0)
    return message, ran, time.monotonic() - begun - ran


@pytest.mark.alone
def test_wandb_that_hangs_costs_only_the_time_allowed_for_the_upload(tmp_path: Path) -> None:
    message, ran, ended = _with_stub(tmp_path, "import time\ntime.sleep(3600)\n", finish_timeout_s=0.5)
    assert ran < 5
    assert ended < 30
    assert message == "W&B: nothing recorded (it did not start in time)"


@pytest.mark.alone
def test_wandb_that_dies_is_left_out(tmp_path: Path) -> None:
    message, ran, _ = _with_stub(tmp_path, "import os\nos._exit(3)\n")
    assert ran < 5
    assert message is not None
    assert message.startswith("W&B: nothing recorded (its process")


def test_wandb_that_is_not_installed_is_said(tmp_path: Path) -> None:
    message, _, _ = _with_stub(tmp_path, "raise ImportError('no such package')\n")
    assert message == "W&B: nothing recorded (start: ImportError: no such package)"


def test_without_network_an_online_run_is_kept_offline_instead(tmp_path: Path) -> None:
    stub = (
        "class Settings:\n    def __init__(self, **values): pass\n"
        "class Run:\n    id = 'x'; step = 0; url = None; summary = {}\n    def finish(self, **k): pass\n"
        "    def define_metric(self, *a, **k): pass\n    def log(self, *a, **k): pass\n"
        "    log_artifact = log\n"
        "def init(mode, **k):\n    if mode == 'online': raise ConnectionError('no route; key ' + 'k' * 40)\n"
        "    return Run()\nclass Artifact:\n    def __init__(self, *a, **k): pass\n"
        "    def add_file(self, *a, **k): pass\n"
    )
    with wandb_at("refuses") as url:
        message, _, _ = _with_stub(tmp_path, stub, WANDB_BASE_URL=url)
    assert message == (
        "W&B: kept offline (cannot go online, ConnectionError: no route; key [redacted]); "
        f"upload it with: wandb sync {tmp_path}/run/wandb"
    )


def test_a_run_that_is_killed_takes_its_wandb_process_with_it(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tau2_fleet.telemetry.settings import *\n"
        "from tau2_fleet.telemetry.run_counters import RunCounters\nfrom tau2_fleet.tracking.tracker import *\n"
        "from tau2_fleet.tracking.start import TrackedRun\n"
        "run = TrackedRun('m', ('retail',), {})\n"
        "settings = WandbSettings(mode=WandbMode.offline)\n"
        "tracker = Tracker(settings, Path(sys.argv[1]), run, RunCounters({'retail': 1})).__enter__()\n"
        "assert tracker._child.started.wait(600)\n"
        "print(tracker._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
    all_gone([child])


@pytest.mark.parametrize("private", [False, True])
def test_no_key_is_in_the_artifact_and_conversations_only_when_wanted(private: bool, tmp_path: Path) -> None:
    write_run(tmp_path)
    for name in (".lock", "run.log", "trace.json", "retail.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "agent-0.log").write_text("a log")
    key_files = [tmp_path / "servers" / name for name in (KEY_FILE, "served.key", "my secret")]
    for key_file in key_files:
        key_file.write_text("the key")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id.json").write_text("{}")
    run = TrackedRun("m", ("retail",), {"server.api_key_file": key_files[2], "user_llm.pool.api_key_file": None})
    if private:  # as umask 077 leaves them
        for path in tmp_path.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def uploaded(transcripts: bool) -> set[str]:
        files = run_files(tmp_path, transcripts, [Path(name) for name in run.key_files])
        return {str(path.relative_to(tmp_path)) for path in files}

    without = uploaded(transcripts=False)
    assert without == {"profile.jsonl", "summary.json", "trace.json"}
    everything = uploaded(transcripts=True)
    assert everything - without == {
        "simulations.jsonl", "prompts.jsonl", "run.log", "retail.json", "servers/agent-0.log",
    }  # fmt: skip


def test_a_summary_is_flattened_with_its_intervals() -> None:
    summary = {"retail": {"pass^1": 0.5, "ci": [0.4, 0.6], "list": [1, 2, 3]}, "name": "x", "long": "y" * 300}
    assert flat_summary(summary) == {
        "retail/pass^1": 0.5, "retail/ci/low": 0.4, "retail/ci/high": 0.6, "name": "x",
    }  # fmt: skip
