"""Submissions to the leaderboard, checked by the installed package's own validator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tau2_fleet.export.command import main
from tau2_fleet.record.line import decode_line
from tests.benchmark import package_side  # noqa: F401  (its environment is set before the package is imported)
from tests.export.conftest import spoil, write_records
from tests.run.runs import records, run

Json = dict[str, Any]
WHO = ["--organization", "My Company", "--email", "me@example.com"]


@pytest.fixture(scope="module")
def qualified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of airline, four times, made to look as if models had played it."""
    directory = tmp_path_factory.mktemp("leaderboard") / "run"
    done = run(
        directory, "experiment=simulated", "domain=airline", "num_trials=4", "report=false", "log_level=ERROR",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    edit(directory, lambda config: config["server"].update(kind="real"))
    edit(directory, lambda config: config["user_llm"].update(provider="openai"))
    lines = records(directory)
    for index, line in enumerate(lines):
        if index % 3 == 0:
            spoil(line)
    write_records(directory, lines)
    head, rest = (directory / "airline.json").read_bytes().split(b'"agent_info":', 1)
    (directory / "airline.json").write_bytes(
        head + b'"agent_info":' + rest.replace(b'"llm":null', b'"llm":"org/My-Model"', 1)
    )
    return directory


def edit(directory: Path, change: Callable[[Json], Any]) -> None:
    path = directory / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))


@pytest.mark.filterwarnings("ignore:Support for class-based")
def test_the_packages_own_validator_takes_the_folder(
    qualified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tau2.scripts.leaderboard import prepare_submission as validator
    from tau2.scripts.leaderboard.verify_trajectories import VerificationMode, verify_trajectories

    folder = tmp_path / "submission"
    assert main([str(qualified), "--format", "leaderboard", *WHO, "-o", str(folder)]) == 0
    capsys.readouterr()
    valid, error, data = validator.check_and_load_submission_data(str(folder))
    assert (valid, error) == (True, "")
    assert validator.validate_submission_traj_set(data.results) == (True, "")
    verify_trajectories(data.trajectory_files, mode=VerificationMode.PUBLIC)  # exits where one does not pass
    assert "All files passed" in capsys.readouterr().out
    _, figures, model, user = validator.get_metrics(data.results)
    ours = data.submission.results.airline
    for k in range(1, 5):
        # the package's own submissions are in percent, too, while it compares them with fractions
        assert getattr(ours, f"pass_{k}") == pytest.approx(100 * getattr(figures["airline"], f"pass_{k}"))
    assert 0 < ours.pass_4 < ours.pass_1 < 100
    assert ours.cost == pytest.approx(figures["airline"].cost)
    assert (data.submission.model_name, data.submission.methodology.user_simulator) == (model, user)
    assert (model, data.submission.contact_info.email) == ("org/My-Model", "me@example.com")
    assert json.loads((folder / "manifest.json").read_text()) == {
        "submissions": [f"my-model_my-company_{data.submission.submission_date}"]
    }


def test_trajectories_are_trimmed_and_keep_every_message(qualified: Path, tmp_path: Path, known_secret: str) -> None:
    folder = tmp_path / "submission"
    assert main([str(qualified), "--format", "leaderboard", *WHO, "-o", str(folder)]) == 0
    [path] = (folder / "trajectories").iterdir()
    assert path.name == "my-model_airline_default_simulated_4trials.json"
    assert known_secret.encode() not in path.read_bytes()
    told = decode_line(path.read_bytes())["simulations"]
    assert not any("raw_data" in message for simulation in told for message in simulation["messages"])
    assert [[message["content"] for message in simulation["messages"]] for simulation in told] == [
        [(message["content"] or "").replace(known_secret, "[redacted]") or None for message in record["messages"]]
        for record in records(qualified)
    ]


def test_who_sends_it_must_be_said(qualified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(qualified), "--format", "leaderboard", "-o", str(tmp_path / "out")]) == 1
    assert "--organization and --email are needed" in capsys.readouterr().err
    assert main([str(qualified), str(qualified), "--format", "leaderboard", "--task", "1", *WHO]) == 2


def test_every_reason_why_not_is_told(qualified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = copy(qualified, tmp_path)
    edit(directory, lambda config: config.update(num_tasks=4, num_trials=3))
    edit(directory, lambda config: config["server"].update(kind="simulated"))
    edit(directory, lambda config: config["user_llm"].update(provider="simulated"))
    lines = records(qualified)
    write_records(directory, [*lines, {**lines[0], "domain": "mock"}])
    assert main([str(directory), str(qualified), "--format", "leaderboard", *WHO]) == 2
    said = capsys.readouterr().err
    for reason in (
        "num_tasks is 4, and a standard submission has null",
        "num_trials is 3, and 4 are wanted",
        "the agent is simulated",
        "the user is simulated",
        "airline: 50 of its tasks do not have 3 trials",
        "mock is no domain of the leaderboard",
        f"airline is in {directory} too; each domain is there once",
    ):
        assert reason in said, said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["agent"].update(mode="ground_truth"), "agent.mode is ground_truth, and a standard"),
        (lambda c: c["agent"]["scaffold"].update(_target_="planner.Planner"), "agent.scaffold._target_ is planner.Pl"),
        (lambda c: c["experts"].update(expert_2={"llm": {}}), "experts.expert_2 is set"),
        (lambda c: c["domain"]["airline"].update(tasks="test"), "domain.airline.tasks is test, and the task set base"),
        (lambda c: c.update(max_steps=30), "max_steps is 30, and a standard submission has 200"),
        (lambda c: c["user_llm"].update(prompt_file="x.md"), "user_llm.prompt_file is x.md"),
    ],
)
def test_settings_that_do_not_qualify_are_named(
    qualified: Path, tmp_path: Path, change: Callable[[Json], Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy(qualified, tmp_path)
    edit(directory, change)
    assert main([str(directory), "--format", "leaderboard", *WHO]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("lacking", ["summary.json", ".hydra/config.yaml"])
def test_a_run_that_is_not_over_does_not_qualify(
    qualified: Path, tmp_path: Path, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy(qualified, tmp_path)
    (directory / lacking).unlink()
    assert main([str(directory), "--format", "leaderboard", *WHO]) == 2
    assert "it has no summary.json or .hydra/config.yaml that can be read: is the run over?" in capsys.readouterr().err


def test_results_that_do_not_qualify_are_named(
    qualified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy(qualified, tmp_path)
    lines = records(qualified)
    lines[3]["termination_reason"] = "deadline"
    write_records(directory, lines[:-1])
    summary = json.loads((directory / "summary.json").read_text())
    summary["digests"]["airline"]["tasks.json"] = "0" * 64
    summary["benchmark"]["name"] = "tau2-verified"
    (directory / "summary.json").write_text(json.dumps(summary))
    (directory / "airline.json").unlink()
    assert main([str(directory), "--format", "leaderboard", *WHO]) == 2
    said = capsys.readouterr().err
    for reason in (
        "the benchmark is tau2-verified",
        "airline was not the package's: tasks.json differ",
        "there is no airline.json",
        "airline: 1 of its tasks do not have 4 trials, such as ",
        "airline: 1 simulations were ended by the infrastructure",
    ):
        assert reason in said, said


def copy(directory: Path, tmp_path: Path) -> Path:
    target = tmp_path / "run"
    (target / ".hydra").mkdir(parents=True)
    for name in ("simulations.jsonl", "summary.json", "airline.json", ".hydra/config.yaml"):
        (target / name).write_bytes((directory / name).read_bytes())
    return target
