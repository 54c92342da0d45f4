"""Runs on somebody's tau2: a registry of our own, and releases of the package beside the one that is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.released import install_tau2
from tests.benchmark.small_tau2 import write_small_tau2
from tests.run.runs import records, run, summary

SMOKE = ("experiment=smoke", "report=false", "wandb=disabled")
DOMAINS = "domain=[mock,retail,airline,telecom]"
_OF_THE_MOMENT = ("timestamp", "usage", "cost", "raw_data", "generation_time_seconds")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_tau2(tmp_path_factory.mktemp("small"))


def test_a_run_on_a_registry_of_ones_own_is_scored_and_says_what_it_is_of(small: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "run", "benchmark=custom", f"benchmark.path={small}", "domain=lamps", "num_trials=2", *SMOKE)
    assert done.returncode == 0, done.stderr + done.stdout
    about = summary(tmp_path / "run")
    assert about["metrics"]["overall"]["average_reward"]["value"] == 1
    assert (about["benchmark"]["name"], about["benchmark"]["code"]["version"]) == ("custom", "7.1")
    assert "custom (tau2 7.1, code " in done.stdout
    [results] = [json.loads((tmp_path / "run" / "lamps.json").read_text())]
    assert [task["mood"] for task in results["tasks"]] == ["calm", "cross"]


def test_it_goes_on_where_it_was_and_not_on_other_code(small: Path, tmp_path: Path) -> None:
    code = shutil.copytree(small, tmp_path / "code")
    begun = ("benchmark=custom", f"benchmark.path={code}", "domain=lamps", *SMOKE)
    assert run(tmp_path / "run", *begun, "num_tasks=1").returncode == 0
    more = run(None, f"resume={tmp_path / 'run'}", "num_tasks=2")
    assert (more.returncode, len(records(tmp_path / "run"))) == (0, 2), more.stderr
    (code / "src" / "tau2" / "lamps.py").open("a").write("# another\n")
    other = run(None, f"resume={tmp_path / 'run'}", "num_trials=2")
    assert other.returncode != 0
    assert "code" in other.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("benchmark=custom", "domain=mock"), "name the code with benchmark.path=PATH"),
        (("benchmark=custom", "benchmark.path=/nowhere", "domain=mock"), "no such file or directory"),
        (("benchmark=custom", "benchmark.path={small}", "domain=mock"), "no domain 'mock' in benchmark.path"),
        (("benchmark=custom", "benchmark.path={small}", "benchmark.python=/no/python", "domain=lamps"), "/no/python"),
        (("benchmark.path={small}", "domain=mock"), "only with benchmark=custom"),
        (("domain=banking_knowledge",), "benchmark=custom benchmark.path=PATH"),
        (("domain=mock", "domain.mock.retrieval=bm25"), "it is for banking_knowledge"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line_or_two(
    small: Path, tmp_path: Path, overrides: Iterable[str], said: str
) -> None:
    done = run(tmp_path / "run", *(text.format(small=small) for text in overrides), *SMOKE)
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) <= 4
    assert not (tmp_path / "run" / "simulations.jsonl").exists()


def test_a_simulation_whose_call_ends_the_process_is_an_infrastructure_error(small: Path, tmp_path: Path) -> None:
    code = shutil.copytree(small, tmp_path / "code")
    lamps = code / "src" / "tau2" / "lamps.py"
    lamps.write_text(
        lamps.read_text()
        .replace('raise ValueError(f"no lamp', 'os._exit(9) #("')
        .replace('task("attic", "attic"', 'task("attic", "cellar"')
    )
    done = run(tmp_path / "run", "benchmark=custom", f"benchmark.path={code}", "domain=lamps", *SMOKE)
    assert done.returncode == 3, done.stderr + done.stdout
    found = {record["task_id"]: record for record in records(tmp_path / "run")}
    assert (found["hall"]["reward"], found["hall"]["termination_reason"]) == (1, "user_stop")
    assert (found["attic"]["reward"], found["attic"]["termination_reason"]) == (0, "infrastructure_error")
    assert "ended with status 9" in found["attic"]["error"]
    assert "Traceback" not in (tmp_path / "run" / "run.log").read_text()


def test_another_copy_of_the_package_gives_the_trajectories_and_rewards_that_are_given_here(tmp_path: Path) -> None:
    code = install_tau2("26.3", tmp_path / "code")
    taken = (DOMAINS, "num_tasks=4", *SMOKE[1:], "experiment=simulated")
    assert run(tmp_path / "ours", *taken).returncode == 0
    same = run(tmp_path / "same", "benchmark=custom", f"benchmark.path={code}", *taken)
    (code / "tau2" / "registry.py").open("a").write("# no longer the installed code, so it gets its own process\n")
    apart = run(tmp_path / "apart", "benchmark=custom", f"benchmark.path={code}", *taken)
    assert (same.returncode, apart.returncode) == (0, 0), same.stderr + apart.stderr
    ours = outcomes(tmp_path / "ours")
    assert len(ours) == 16
    assert outcomes(tmp_path / "same") == ours
    assert outcomes(tmp_path / "apart") == ours


def test_an_earlier_release_runs_beside_the_installed_one(tmp_path: Path) -> None:
    code = install_tau2("26.1", tmp_path / "code")
    taken = (DOMAINS, "num_tasks=3", *SMOKE[1:], "experiment=simulated")
    done = run(tmp_path / "run", "benchmark=custom", f"benchmark.path={code}", *taken)
    assert done.returncode == 0, done.stderr
    about = summary(tmp_path / "run")
    assert (about["benchmark"]["code"]["version"], about["benchmark"]["scoring"]) == ("26.1", "tau2-0.2")
    rewards = [record["reward"] for record in records(tmp_path / "run")]
    assert rewards == [1.0] * 12


def outcomes(run_dir: Path) -> dict[tuple[str, str], Any]:
    """What does not depend on the moment, of every simulation."""
    return {
        (record["domain"], record["task_id"]): {
            **{name: record[name] for name in ("seed", "termination_reason", "reward", "sub_rewards", "db_diff")},
            "reward_info": record["reward_info"],
            "messages": [
                {name: value for name, value in message.items() if name not in _OF_THE_MOMENT}
                for message in record["messages"]
            ],
        }
        for record in records(run_dir)
    }
