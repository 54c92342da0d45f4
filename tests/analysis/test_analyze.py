"""`tau2-fleet analyze`: its figures are those of the events, its sums add up, its files are there."""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest

from tau2_fleet.analysis.analyze import main
from tau2_fleet.analysis.profile_reader import PARTS, read_profiles, run_directories
from tau2_fleet.analysis.tables import duration
from tau2_fleet.analysis.timeline import BUCKETS, Timeline
from tau2_fleet.analysis.trace_rows import TRACE_FILE, draw_trace, trace_rows
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.events import LLMCall, ReplicaSample, SimulationDone
from tau2_fleet.telemetry.trace import TraceWriter
from tests.telemetry.run_directory import OWN_MS, MadeRun, write_run


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    return write_run(tmp_path / "run", {"retail": 12, "airline": 8})


def _rows(run_dir: Path, name: str, output: Path | None = None) -> list[dict[str, str]]:
    with ((output or run_dir / "analysis") / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _csv(run_dir: Path, name: str) -> dict[str, dict[str, str]]:
    return {row[next(iter(row))]: row for row in _rows(run_dir, name)}


def _durations(made: MadeRun, kind: str) -> list[float]:
    return [event.duration_ms for event in made.events if isinstance(event, LLMCall) and event.type == kind]


def test_the_figures_by_type_are_those_of_the_events(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.directory)]) == 0
    rows = _csv(made.directory, "by_type")
    for kind in ("llm_call", "user_sim", "expert_call"):
        values, row = _durations(made, kind), rows[kind]
        assert int(row["count"]) == len(values)
        assert float(row["mean_ms"]) == pytest.approx(statistics.fmean(values))
        assert float(row["sd_ms"]) == pytest.approx(statistics.stdev(values))
        for percent in (50, 90, 95, 99):
            assert float(row[f"p{percent}_ms"]) == pytest.approx(float(numpy.percentile(values, percent)))
    calls = [event for event in made.events if isinstance(event, LLMCall) and event.type == "llm_call"]
    served_s = sum(call.duration_ms - call.queue_ms for call in calls) / 1000
    assert float(rows["llm_call"]["tokens_per_s"]) == pytest.approx(
        sum(call.output_tokens for call in calls) / served_s
    )
    out = capsys.readouterr().out
    for title in ("by type", "by type and model", "by tool", "by replica", "slowest tasks", "slowest calls"):
        assert f"{title}\n" in out.replace("  ", "").replace(" \n", "\n"), title


def test_tokens_and_cost_agree_with_the_records(made: MadeRun) -> None:
    assert main([str(made.directory), "--no-plots"]) == 0
    rows = _csv(made.directory, "by_type")
    leaves = [row for kind, row in rows.items() if kind not in ("simulation", "step_complete")]
    usages = [usage for record in made.records for usage in record["usage_by_role"].values()]
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert sum(int(row[name]) for row in leaves) == sum(usage[name] for usage in usages)
    costs = sum(sum(record["cost_by_role"].values()) for record in made.records)
    assert sum(float(row["cost_usd"]) for row in leaves) == pytest.approx(costs)
    tool_messages = sum(message["role"] == "tool" for record in made.records for message in record["messages"])
    assert int(rows["tool_call"]["count"]) == tool_messages
    tasks = _csv(made.directory, "by_task")
    assert sum(float(row["cost_usd"]) for row in tasks.values()) == pytest.approx(costs)
    assert sum(float(row["mean_reward"]) for row in tasks.values()) == sum(one["reward"] for one in made.records)


def test_a_task_has_the_figures_of_the_other_tables_over_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_run(tmp_path / "run", {"retail": 4}, trials=3)
    assert main([str(made.directory), "--no-plots"]) == 0
    rows = _csv(made.directory, "by_task")
    ended = [event for event in made.events if isinstance(event, SimulationDone)]
    total_ms = sum(event.duration_ms for event in ended)
    for name, row in rows.items():
        own = [event.duration_ms for event in ended if event.scope and f"retail/{event.scope.task_id}" == name]
        records = [record for record in made.records if f"retail/{record['task_id']}" == name]
        usages = [usage for record in records for usage in record["usage_by_role"].values()]
        calls = [event for event in made.events if isinstance(event, LLMCall)]
        calls = [call for call in calls if call.scope and f"retail/{call.scope.task_id}" == name]
        assert int(row["trials"]) == len(own) == 3
        assert float(row["mean_ms"]) == pytest.approx(statistics.fmean(own))
        assert float(row["sd_ms"]) == pytest.approx(statistics.stdev(own))
        for percent in (50, 90, 95, 99):
            assert float(row[f"p{percent}_ms"]) == pytest.approx(float(numpy.percentile(own, percent)))
        assert float(row["share"]) == pytest.approx(sum(own) / total_ms)
        assert int(row["output_tokens"]) == sum(usage["output_tokens"] for usage in usages)
        served_s = sum(call.duration_ms - call.queue_ms - (call.connect_ms or 0) for call in calls) / 1000
        assert float(row["tokens_per_s"]) == pytest.approx(int(row["output_tokens"]) / served_s)
        assert float(row["mean_reward"]) == statistics.fmean(record["reward"] for record in records)
    means = [float(row["mean_ms"]) for row in rows.values()]
    assert means == sorted(means, reverse=True)
    shown = capsys.readouterr().out
    assert "share: of the simulations' summed time, " in shown
    assert shown.index("retail/", shown.index("slowest tasks")) == shown.index(f"{next(iter(rows))} ")


def test_tasks_of_one_trial_are_shown_without_percentiles(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.directory), "--no-plots"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.startswith("task "))
    assert " ".join(heading.split()) == "task trials reward mean share tokens in out cached tok/s cost"
    assert "p99_ms" in next(iter(_csv(made.directory, "by_task").values()))


def test_the_parts_of_the_time_add_up_to_the_simulations_and_nothing_is_counted_twice(made: MadeRun) -> None:
    profile = read_profiles([made.directory])
    simulated = sum(event.duration_ms for event in made.events if isinstance(event, SimulationDone))
    assert profile.simulated_ms == pytest.approx(simulated)
    split = {part: sum(parts[part] for parts in profile.split_ms.values()) for part in PARTS}
    assert split["own"] == pytest.approx(OWN_MS * len(made.records), rel=0.02)
    calls = [event for event in made.events if isinstance(event, LLMCall)]
    assert split["queue"] == pytest.approx(sum(call.queue_ms for call in calls))
    assert split["connect"] == pytest.approx(sum(call.connect_ms or 0 for call in calls)) != 0
    assert split["expert"] == pytest.approx(sum(c.duration_ms - c.queue_ms for c in calls if c.type == "expert_call"))
    assert main([str(made.directory), "--no-plots"]) == 0
    shares = [float(row["share"]) for row in _csv(made.directory, "by_type").values() if row["share"]]
    own_share = split["own"] / simulated
    assert sum(shares) + own_share == pytest.approx(1.0)


def test_the_slowest_calls_are_the_slowest(made: MadeRun) -> None:
    profile = read_profiles([made.directory])
    longest = sorted((event.duration_ms for event in made.events if isinstance(event, LLMCall)), reverse=True)
    assert [call.duration_ms for call in profile.slowest_calls()] == pytest.approx(longest[:20])


def test_replicas_runs_and_sweeps_are_told_apart(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for index in range(2):
        write_run(sweep / str(index), {"retail": 3 + index}, seed=index)
    assert run_directories([sweep]) == [sweep / "0", sweep / "1"]
    assert run_directories([sweep / "1", sweep]) == [sweep / "1", sweep / "0"]
    assert main([str(sweep)]) == 0
    counts = {(row["run"], row["name"]): int(row["count"]) for row in _rows(sweep, "by_type")}
    assert (counts["0", "simulation"], counts["1", "simulation"]) == (3, 4)
    assert {row["run"] for row in _rows(sweep, "by_replica")} == {"0", "1"}
    assert (sweep / "analysis" / "1" / "timeline.png").exists()


def test_a_later_analysis_leaves_nothing_of_an_earlier_one_behind(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, {"retail": 2}).directory for name in ("first", "second"))
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.csv").write_text("kept")
    assert main([str(first), str(second), "--output", str(output)]) == 0
    assert (output / "second" / "time_split.png").exists()
    assert main([str(first), "--output", str(output), "--no-plots"]) == 0
    assert not list(output.rglob("*.png"))
    assert (output / "mine.csv").read_text() == "kept"
    assert "run" not in _rows(tmp_path, "by_type", output)[0]


@pytest.mark.parametrize(("form", "begins"), [("md", "| name |"), ("latex", r"\begin{tabular}"), ("csv", "name,")])
def test_tables_come_in_the_formats_of_other_programs(
    made: MadeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, begins: str
) -> None:
    assert main([str(made.directory), "--no-plots", "--format", form, "--output", str(tmp_path / "out")]) == 0
    assert any(line.startswith(begins) for line in capsys.readouterr().out.splitlines())


def test_a_resumed_run_counts_neither_the_pause_nor_what_the_kill_left_half_done(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", {"retail": 2}).directory
    path = run_dir / "profile.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    once = read_profiles([run_dir])
    tokens = sum(task.series.output_tokens for task in once.tasks.values())
    half = [row for row in rows if row["type"] in ("run", "llm_call", "user_sim")][:5]
    later = [{**row, "time": row["time"] + 100_000} for row in rows]
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in half) + '{"torn\n' + "".join(json.dumps(row) + "\n" for row in later)
    )
    twice = read_profiles([run_dir])
    assert twice.simulated_ms == pytest.approx(once.simulated_ms)
    assert twice.split_ms["retail"] == pytest.approx(once.split_ms["retail"])
    assert once.wall_s < twice.wall_s < 2 * once.wall_s + 1
    assert sum(task.series.output_tokens for task in twice.tasks.values()) == tokens > 0


def test_the_timeline_holds_what_there_was_at_each_moment() -> None:
    timeline = Timeline.over(1000.0, 1000.0 + BUCKETS)
    timeline.simulation(end_s=1010.0, duration_s=10.0)
    timeline.simulation(end_s=1010.5, duration_s=5.0)
    timeline.call(end_s=1004.25, duration_s=0.5, tokens=100)
    running = timeline.simulations.values()
    assert running[:12] == pytest.approx([1, 1, 1, 1, 1, 1.5, 2, 2, 2, 2, 0.5, 0])
    assert sum(running) == pytest.approx(15.0)
    assert timeline.calls.values()[3:5] == pytest.approx([0.25, 0.25])
    assert sum(timeline.token_rate.values()) * timeline.width_s == pytest.approx(100)
    assert timeline.times_s()[0] == 0.5


def test_concurrency_never_exceeds_what_ran(made: MadeRun) -> None:
    (timeline,) = read_profiles([made.directory]).timelines.values()
    assert max(timeline.simulations.values()) <= 8 + 1e-6
    samples = [event for event in made.events if isinstance(event, ReplicaSample)]
    assert sum(len(points) for points in timeline.kv_use.values()) == len(samples)


def test_the_pictures_are_there_and_not_blank(made: MadeRun) -> None:
    from matplotlib.image import imread

    assert main([str(made.directory)]) == 0
    for name in ("latency_distributions", "latency_cdf", "time_split", "timeline"):
        image = imread(made.directory / "analysis" / f"{name}.png")
        colours = {tuple(pixel) for pixel in numpy.round(image[::4, ::4, :3].reshape(-1, 3), 1)}
        assert image.shape[1] > 800
        assert len(colours) > 8, name


def test_a_run_of_one_instant_call_can_be_analyzed(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"time": 5.0, "type": "llm_call", "domain": "mock", "task_id": "1", "trial": 0, "thread": 1, "model": "m",
         "call_type": "vllm", "duration_ms": 0.0, "queue_ms": 0.0, "input_tokens": 0, "output_tokens": 0,
         "cached_tokens": 0, "cost_usd": 0.0, "attempts": 1, "has_tool_calls": False},
        {"time": 5.0, "type": "simulation", "domain": "mock", "task_id": "1", "trial": 0, "thread": 1,
         "termination_reason": "user_stop", "reward": 1.0, "duration_ms": 0.0, "cost_usd": 0.0},
    ]  # fmt: skip
    (tmp_path / "profile.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "analysis" / "time_split.png").exists()


def test_events_that_lack_what_their_type_promises_are_counted_and_left_out(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.directory / "profile.jsonl"
    lines = path.read_text().splitlines()
    spoilt: list[Any] = []
    for kind, key, wrong in (
        ("llm_call", "cached_tokens", None), ("tool_call", "duration_ms", "long"), ("simulation", "reward", []),
        ("llm_call", "task_id", {}), ("step_complete", "time", "now"), ("tool_call", "function", 7),
    ):  # fmt: skip
        spoilt.append(json.loads(next(line for line in lines if f'"type":"{kind}"' in line.replace(": ", ":"))))
        spoilt[-1][key] = wrong
    path.write_text("".join(f"{line}\n" for line in [json.dumps(spoilt[0]), *lines, *map(json.dumps, spoilt[1:])]))
    before = read_profiles([write_run(made.directory.parent / "whole", {"retail": 12, "airline": 8}).directory])
    assert main([str(made.directory), "--no-plots"]) == 0
    assert f"{len(spoilt)} of {len(lines) + len(spoilt)} events are damaged, left out" in capsys.readouterr().err
    assert {name: len(series.durations_ms) for name, series in read_profiles([made.directory]).by_type.items()} == {
        name: len(series.durations_ms) for name, series in before.by_type.items()
    }


def test_mistakes_are_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "is no run directory: it has no profile.jsonl" in capsys.readouterr().err
    (tmp_path / "profile.jsonl").write_text("")
    assert main([str(tmp_path)]) == 1
    assert "holds no calls yet" in capsys.readouterr().err
    with pytest.raises(UserError):
        run_directories([tmp_path / "none"])


def test_durations_read_well() -> None:
    shown = [duration(value) for value in (0.75, 12.34, 999.7, 1500, 45_000, 3_000_000, 7_500_000)]
    assert shown == ["0.75 ms", "12.3 ms", "1 s", "1.50 s", "45.0 s", "50 min", "2 h 05 min"]


def test_the_picture_of_the_trace_shows_every_call_in_the_row_of_its_simulation(made: MadeRun, tmp_path: Path) -> None:
    trace = tmp_path / TRACE_FILE
    writer = TraceWriter(trace)
    writer.write(made.events)
    writer.close()
    simulations, replicas = trace_rows(trace)
    calls = [event for event in made.events if isinstance(event, LLMCall)]
    assert len(simulations) == len({event.scope for event in calls})
    drawn = Counter(kind for row in simulations for kind, _, _ in row.slices)
    assert {kind: drawn[kind] for kind in ("llm_call", "user_sim", "expert_call")} == {
        kind: sum(event.type == kind for event in calls) for kind in ("llm_call", "user_sim", "expert_call")
    }
    assert sum(len(row.slices) for row in replicas) == sum(event.replica is not None for event in calls)
    picture = draw_trace(trace, tmp_path / "trace.png")
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_trace_cut_off_by_a_kill_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    trace = tmp_path / TRACE_FILE
    process = '{"name":"process_name","ph":"M","pid":4,"tid":0,"args":{"name":"simulations retail"}}'
    call = '{"name":"user_sim","cat":"model","ph":"X","ts":5,"dur":2,"pid":4,"tid":1,"args":{}}'
    trace.write_text(f'[\n{process},\n{call},\n{{"na')
    simulations, _ = trace_rows(trace)
    assert [len(row.slices) for row in simulations] == [1]
    assert draw_trace(trace, tmp_path / "trace.png") is not None
