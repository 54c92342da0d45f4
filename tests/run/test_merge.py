"""`merge`: shards, and runs of other tasks, become the run that one machine would have made; others are refused."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.run.runs import ROOT, env, inventory, kill, records, records_so_far, run, start, summary
from tests.waiting import CEILING_S, wait_for

SMOKE = ("experiment=smoke", "num_trials=2", "wandb=disabled")
LATENCY = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.05")


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return warm.run("tau2_fleet", [name, *map(str, arguments)], cwd=ROOT, env=env({}))


def shard(index: int, count: int = 3) -> tuple[str, str]:
    return f"shard.index={index}", f"shard.count={count}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in one piece, its three shards, and runs that do not belong to them."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = {
        "whole": SMOKE,
        **{f"s{index}": (*SMOKE, *shard(index)) for index in range(3)},
        "seed": (*SMOKE, "seed=301"),
        "two": (*SMOKE, "task_ids=[create_task_1,update_task_1]"),
    }
    with ThreadPoolExecutor(2) as pool:
        done = dict(
            zip(wanted, pool.map(lambda name: run(folder / name, *_unquoted(wanted[name])), wanted), strict=True)
        )
    assert {name: one.returncode for name, one in done.items()} == dict.fromkeys(wanted, 0)
    return folder


def _unquoted(arguments: tuple[str, ...]) -> list[str]:
    return [argument.strip("'") for argument in arguments]


def told(run_dir: Path) -> dict[str, Any]:
    """What a run says of the models under test, without what depends on its clock, its servers and its machine."""
    found = summary(run_dir)
    names = ("result_digest", "exit_status", "stopped", "inventory", "lost_by_cause", "models", "scaffolds", "digests")
    essence = {name: found[name] for name in (*names, "reference", "returned_models", "spending", "replies")}
    for part in found["metrics"].values():
        del part["duration_s"]
    essence["metrics"] = rounded(found["metrics"])
    results = json.loads((run_dir / "mock.json").read_text())
    essence["info"], essence["tasks"] = results["info"], ordered(results["tasks"])
    essence["simulations"] = sorted(_said(one) for one in results["simulations"])
    essence["prompts"] = sorted((run_dir / "prompts.jsonl").read_text().splitlines())
    with (run_dir / "simulations.csv").open() as file:
        essence["rows"] = sorted((row["id"], row["trial"], row["reward"], row["cause"]) for row in csv.DictReader(file))
    return essence


def ordered(value: Any) -> Any:
    """Without what the package makes anew in each process: the order of sets, and when a task's history was read."""
    if isinstance(value, dict):
        return {name: ordered(part) for name, part in value.items() if name != "timestamp"}
    if isinstance(value, list):
        return sorted(value) if all(isinstance(one, str) for one in value) else [ordered(one) for one in value]
    return value


def rounded(value: Any) -> Any:
    """Sums depend in their last digit on the order in which simulations ended."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return round(value, 12) if isinstance(value, float) else value


def _said(simulation: dict[str, Any]) -> str:
    messages = [(one["role"], one["content"]) for one in simulation["messages"]]
    kept = ("task_id", "trial", "seed", "termination_reason", "reward_info")
    return json.dumps([*(simulation[name] for name in kept), messages])


def test_three_shards_merged_are_the_run_in_one_piece(runs: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    done = tool("merge", *(runs / f"s{index}" for index in (2, 0, 1)), "-o", merged)
    assert done.returncode == 0, done.stderr
    assert "18/18" in done.stdout
    assert told(merged) == told(runs / "whole")
    ended = [record["ended"] for record in records(merged)]
    assert ended == sorted(ended)
    assert [part["shard"] for part in summary(merged)["merged"]] == [f"shard {index} of 3" for index in (2, 0, 1)]

    kinds = [json.loads(line)["type"] for line in (merged / "profile.jsonl").read_text().splitlines()]
    one_piece = [json.loads(line)["type"] for line in (runs / "whole" / "profile.jsonl").read_text().splitlines()]
    for kind in ("llm_call", "user_sim", "tool_call", "step_complete", "simulation"):
        assert kinds.count(kind) == one_piece.count(kind), kind
    slices = [event["name"] for event in json.loads((merged / "trace.json").read_text()) if event["ph"] == "X"]
    whole = [event["name"] for event in json.loads((runs / "whole" / "trace.json").read_text()) if event["ph"] == "X"]
    assert sorted(slices) == sorted(whole)
    log = (merged / "run.log").read_text().splitlines()
    assert len(log) == sum(len((runs / f"s{index}" / "run.log").read_text().splitlines()) for index in range(3))
    assert sum("attempt 0 begins" in line for line in log) == 3

    for index in range(3):
        servers = runs / f"s{index}" / "servers"
        kept = {path.name: path.read_bytes() for path in (merged / "servers" / f"s{index}").iterdir()}
        assert kept == {path.name: path.read_bytes() for path in servers.glob("*.log")} != {}
        assert all((merged / "servers" / f"s{index}" / name).samefile(servers / name) for name in kept)

    page = (merged / "report.html").read_text()
    assert page.count("create_task_1") >= (runs / "whole" / "report.html").read_text().count("create_task_1") > 0
    assert tool("show", merged, "--ids").stdout.splitlines()
    assert sorted(tool("show", merged, "--ids").stdout) == sorted(tool("show", runs / "whole", "--ids").stdout)
    rescored = tool("rescore", merged)
    assert rescored.returncode == 0
    assert rescored.stdout.splitlines()[1].split()[:3] == ["mock.json", "mock", "18"]
    again = run(None, f"resume={merged}")
    assert again.returncode == 0
    assert "nothing is left to run: all 18" in again.stderr + again.stdout
    assert told(merged) == told(runs / "whole")
    assert len(summary(merged)["merged"]) == 3


def test_a_shard_that_was_killed_is_missed_and_comes_back_by_either_resume(runs: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = start(killed, *SMOKE, *shard(1), *LATENCY, "max_concurrency=3")
    wait_for(lambda: (killed / "simulations.jsonl").exists() and len(records_so_far(killed)) >= 2)
    kill(process)
    stored = len(records(killed))
    assert stored < 9
    parts = [runs / "s0", killed, runs / "s2"]
    merged = tmp_path / "merged"
    done = tool("merge", *parts, "-o", merged)
    assert done.returncode == 3, done.stderr
    assert f"{9 - stored} not run" in done.stdout
    assert inventory(merged)["not_run"] == 9 - stored

    assert run(None, f"resume={merged}").returncode == 0
    assert told(merged) == told(runs / "whole")
    assert run(None, f"resume={killed}", "server.simulated.latency=null").returncode == 0
    assert tool("merge", *parts, "-o", tmp_path / "anew").returncode == 0
    assert told(tmp_path / "anew") == told(runs / "whole")


def test_runs_of_other_tasks_made_elsewhere_become_one_run_of_all(runs: Path, tmp_path: Path) -> None:
    ids = sorted({record["task_id"] for record in records(runs / "whole")} - {"create_task_1", "update_task_1"})
    rest = tmp_path / "rest"
    assert run(rest, *SMOKE, f"task_ids=[{','.join(ids)}]").returncode == 0
    merged = tmp_path / "merged"
    done = tool("merge", rest, runs / "two", "-o", merged, "--no-report")
    assert done.returncode == 0, done.stderr
    assert told(merged)["metrics"] == told(runs / "whole")["metrics"]
    assert told(merged)["simulations"] == told(runs / "whole")["simulations"]
    assert not (merged / "report.html").exists()
    assert run(None, f"resume={merged}").returncode == 0


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("s0", "s2"), "shard 1 of 3 missing"),
        (("s0", "s1", "s1"), "s1 is named twice"),
        (("s0", "s1", "copy"), "copy are the same part, shard 1 of 3"),
        (("s0", "s1", "nothing"), "nothing is missing"),
        (("s0", "whole"), "whole is a whole run"),
        (("whole", "two"), "mock/create_task_1 trial 0 is in"),
        (("two", "seed"), "differ in seed (300, 301)"),
        (("s0", "s1", "other_data"), "other data: mock: policy"),
        (("s0", "s1", "other_model"), "other models played the agent: agent in"),
        (("s0", "s1", "other_trials"), "no parts of one run: num_trials"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(
    runs: Path, tmp_path: Path, named: tuple[str, ...], words: str
) -> None:
    for name, change in _CHANGED.items():
        if name in named:
            shutil.copytree(runs / ("s1" if name == "copy" else "s2"), tmp_path / name)
            change(tmp_path / name)
    paths = [tmp_path / name if (tmp_path / name).exists() else runs / name for name in named]
    done = tool("merge", *paths, "-o", tmp_path / "merged")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob(".*"))


def _edit(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(run_dir: Path) -> None:
        text = (run_dir / name).read_text()
        assert before in text
        (run_dir / name).write_text(text.replace(before, after))

    return change


def _other_policy(run_dir: Path) -> None:
    digests = json.loads((run_dir / ".hydra" / "digests.json").read_text())
    assert "policy" in digests["mock"]
    digests["mock"]["policy"] = "another"
    (run_dir / ".hydra" / "digests.json").write_text(json.dumps(digests))


_CHANGED: dict[str, Callable[[Path], None]] = {
    "copy": lambda run_dir: None,
    "other_data": _other_policy,
    "other_model": _edit("simulations.jsonl", '"model":"agent"', '"model":"another"'),
    "other_trials": _edit(".hydra/config.yaml", "num_trials: 2", "num_trials: 3"),
}


def test_nothing_is_written_over_and_a_run_that_goes_on_is_left_alone(runs: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (runs / "two").rglob("*") if path.is_file()}
    done = tool("merge", runs / "s0", runs / "s1", runs / "s2", "-o", runs / "two")
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert {path: path.read_bytes() for path in (runs / "two").rglob("*") if path.is_file()} == before

    process = start(tmp_path / "live", *SMOKE, *LATENCY, "max_concurrency=3")
    try:
        wait_for(lambda: (tmp_path / "live" / "simulations.jsonl").exists())
        done = tool("merge", tmp_path / "live", runs / "two", "-o", tmp_path / "merged")
        assert done.returncode == 1
        assert "is being written by a run" in done.stderr
    finally:
        process.terminate()
        process.wait(CEILING_S)


def test_a_part_cannot_become_another_part(runs: Path, tmp_path: Path) -> None:
    part = shutil.copytree(runs / "s0", tmp_path / "part")
    done = run(None, f"resume={part}", "shard.index=1")
    assert done.returncode == 1
    assert "shard.index (0 then, 1 now)" in done.stderr
    whole = run(None, f"resume={part}", "shard.index=0", "shard.count=1")
    assert whole.returncode == 0, whole.stderr
    assert told(part) == told(runs / "whole")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("shard.index=3", "shard.count=3"), "of shard.count=3 parts the last is 2"),
        (("shard.count=16", "max_concurrency=8"), "all 16 shards share it"),
        (("shard.index=-1",), "shard.index=-1"),
    ],
)
def test_parts_that_cannot_be_are_refused(tmp_path: Path, keys: tuple[str, ...], words: str) -> None:
    done = run(tmp_path / "run", *SMOKE, *keys)
    assert done.returncode == 1
    assert words in done.stderr
