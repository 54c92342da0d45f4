"""Whole runs with code of one's own, from a folder outside the checkout: `--config-dir` and PYTHONPATH alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.analysis import rescore, show
from tests import warm
from tests.examples import write_examples
from tests.fleet.support import environment_for_runs

SMOKE = ("experiment=smoke", "report=false")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    write_examples(folder)
    return folder


def call(mine: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = environment_for_runs()
    environment["PYTHONPATH"] += f"{os.pathsep}{mine}"
    return warm.run("tau2_fleet", ["run", *arguments], cwd=cwd or mine, env=environment)


def run(mine: Path, *arguments: str, cwd: Path | None = None) -> None:
    done = call(mine, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr + done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_agent_user_domain_and_instructions_of_ones_own_from_start_to_resume(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    (mine / "instructions.md").write_text("Be brief.")
    run(
        mine, "--config-dir", "conf", *SMOKE, "domain=library", "agent/scaffold=planner", "agent.scaffold.every=2",
        "user_llm/scaffold=blunt", "agent.prompt_file=instructions.md", f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    summary, results = read(run_dir / "summary.json"), read(run_dir / "library.json")
    assert summary["metrics"]["overall"]["average_reward"]["value"] == 1.0
    planner = {"name": "planner", "target": "planner.Planner", "options": {"every": 2}}
    assert summary["scaffolds"]["agent"] == planner
    departures = summary["reference"]["departures"]
    assert departures["agent.scaffold"][1] == {"_target_": "planner.Planner", "every": 2}
    assert departures["agent.prompt_file"][1].startswith("sha256:")
    assert {"agent.prompt_file"} <= summary["digests"]["prompts"].keys()
    assert {"tools.py", "policy", "db.json"} <= summary["digests"]["library"].keys()
    agent, user = results["info"]["agent_info"], results["info"]["user_info"]
    assert (agent["implementation"], agent["llm_args"]["scaffold"]) == ("planner", {"every": 2})
    assert agent["llm_args"]["prompt_file"].startswith("sha256:")
    assert user["implementation"] == "blunt"
    prompts = (run_dir / "prompts.jsonl").read_text()
    assert "<instructions>\\nBe brief.\\n</instructions>" in prompts
    assert "# Library" in prompts

    # From elsewhere, with what the run directory remembers.
    run(mine, f"resume={run_dir}", "num_trials=2", cwd=tmp_path)
    resumed = read(run_dir / "summary.json")
    assert resumed["inventory"]["overall"]["finished"] == 4
    assert resumed["result_digest"] == summary["result_digest"]
    assert rescore.main([str(run_dir)]) == 0
    assert show.main([str(run_dir), "--task", "library/renew_emma", "--trial", "1"]) == 0
    shown = capsys.readouterr().out
    assert 'renew(title="Emma")' in shown
    (mine / "instructions.md").write_text("Be long.")
    refused = call(mine, f"resume={run_dir}", "num_trials=2", cwd=tmp_path)
    assert refused.returncode == 1
    assert "agent.prompt_file" in refused.stderr
    assert "library" in read(tmp_path / "run" / "summary.json")["digests"]


def test_an_agent_of_the_package_plays_a_run_as_ours_does(mine: Path, tmp_path: Path) -> None:
    directories = []
    for number, choice in enumerate((["agent/scaffold=tau2", "agent.scaffold.factory=llm_agent"], [])):
        directories.append(tmp_path / str(number))
        run(mine, *SMOKE, *choice, f"hydra.run.dir={directories[-1]}")
    theirs, ours = (read(directory / "mock.json") for directory in directories)

    def said(results: Any) -> dict[str, list[Any]]:
        return {
            run["task_id"]: [
                (message["role"], message.get("content"), message.get("cost")) for message in run["messages"]
            ]
            for run in results["simulations"]
        }

    assert said(theirs) == said(ours)
    assert theirs["info"]["agent_info"]["llm_args"]["scaffold"]["factory"] == "llm_agent"
    assert ours["info"]["agent_info"]["implementation"] == "llm_agent"
    digests = [read(directory / "summary.json")["result_digest"] for directory in directories]
    assert digests[0] != digests[1]


BROKEN = """
def breaks(context): raise ValueError("no luck\\nat all")
def wrong(context): return object()
def silent(context):
    class Agent: name = "silent"
    return Agent()
class Asking:
    name = "asking"
    def __init__(self, context):
        import asyncio
        context.model.ask([]).send(None)
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["agent.scaffold._target_=broken.nothing"],
            "agent.scaffold._target_: broken.nothing cannot be had: Attribute",
        ),
        (
            ["agent.scaffold._target_=broken.breaks"],
            "agent.scaffold: broken.breaks failed while it was made: ValueError",
        ),
        (["agent.scaffold._target_=broken.wrong"], "broken.wrong made a object, which has no name, next_message"),
        (
            ["user_llm.scaffold._target_=broken.silent"],
            "user_llm.scaffold: broken.silent made a Agent, which has no next",
        ),
        (["agent.scaffold._target_=broken.Asking"], "a model can be asked in next_message, not while"),
        (
            ["agent/scaffold=planner", "agent.scaffold.often=2"],
            "agent.scaffold.often: the chosen file of agent/scaffold/",
        ),
        (["agent.prompt_file=empty.md"], "it is empty"),
        (["domain=[]", "+domain.mine.path=conf"], "policy.md, tools.py, tasks.json, db.json or db.toml missing"),
        (["domain=[]", "+domain.mine.path=nowhere"], "there is no such directory"),
        (["domain=library", "agent.mode=solo"], "agent.mode=solo can play none of the chosen tasks"),
    ],
)
def test_what_cannot_work_is_named_in_two_lines_before_any_server_starts(
    mine: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (mine / "broken.py").write_text(BROKEN)
    (mine / "empty.md").write_text("\n")
    run_dir = tmp_path / "run"
    done = call(mine, "--config-dir", "conf", *SMOKE, *arguments, f"hydra.run.dir={run_dir}")
    assert (done.returncode, run_dir.exists()) == (1, False)
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
