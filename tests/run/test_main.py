"""The promises of the command line: words for mistakes, exit statuses, directories, resume; each a real process.

What a job does is not this file's matter: a job here writes what it was given and ends as its seed says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import warm

ROOT = Path(__file__).resolve().parents[2]

JOBS = textwrap.dedent(
    """
    import json, os, signal, sys, types
    import tau2_fleet.run
    from tau2_fleet.errors import ExitStatus, UserError
    from tau2_fleet.run.job_context import JobResult

    def run(config, context, lock):
        from tau2_fleet.config import departures
        line = {"seed": config.seed, "model": config.agent.model, "overrides": context.overrides,
                "resume": config.resume, "reference": departures(config)[0]}
        with open(context.run_dir / "jobs.jsonl", "a") as file:
            file.write(json.dumps(line) + "\\n")
        if config.seed == 1:
            raise UserError("no server came up")
        if config.seed == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if config.seed == 4:
            raise RuntimeError("a mistake in the program, with " + os.environ["PLANTED_API_KEY"])
        return JobResult(ExitStatus(config.seed if config.seed in (3, 130) else 0), outcome=None)

    experiment = types.ModuleType("tau2_fleet.run.experiment")
    experiment.run = run
    experiment.prepare = lambda config, run_dir: config
    sys.modules["tau2_fleet.run.experiment"] = tau2_fleet.run.experiment = experiment

    from tau2_fleet.cli import run as main
    sys.exit(main())
    """
)


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment without what names models and data, with a key, and with what is given."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CKPT_DIR", "TAU2_DATA_DIR")}
    return {**kept, "PLANTED_API_KEY": "sk-planted-0123456789", **environment}


def start(arguments: Sequence[str], folder: Path, code: str | None = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *(["-m", "src.main"] if code is None else ["-c", code]), *arguments],
        cwd=folder,
        env=bare(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def command(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = warm.run("src.main", arguments, cwd=folder, env=bare(environment))
    return done.returncode, done.stdout, done.stderr


def jobs(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    return finish(start(["experiment=smoke", *arguments], folder, JOBS, **environment))


def ended(folder: Path) -> list[tuple[str, str, int, str | None]]:
    """What the one sweep in a folder says of each job: its directory, last override, status and error."""
    (sweep,) = run_dirs(folder, "multirun")
    told = json.loads((sweep / "summary.json").read_text())["jobs"]
    return [(job["directory"], job["overrides"][-1], job["exit_status"], job["error"]) for job in told]


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "jobs.jsonl").read_text().splitlines()]


def run_dirs(folder: Path, kind: str = "outputs") -> list[Path]:
    return sorted(folder.glob(f"{kind}/*/*"))


def test_the_help_answers_without_hydra(tmp_path: Path) -> None:
    status, out, _ = finish(start(["--help"], tmp_path))
    assert status == 0
    assert "experiment=smoke" in out
    loaded = (
        "import sys; from tau2_fleet.cli import run; run(['--help']); print({*sys.modules} & {'hydra', 'omegaconf'})"
    )
    assert finish(start([], tmp_path, loaded))[1].splitlines()[-1] == "set()"


def test_a_start_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "('litellm', 'wandb', 'pandas', 'tau2')"
    code = f"import sys; import tau2_fleet.run.jobs; print([m for m in {heavy} if m in sys.modules])"
    assert finish(start([], tmp_path, code))[1].strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["agent.model is not set", "CKPT_DIR", "experiment=smoke"]),
        (["serve.num=3"], ["serve.num: there is no such key", "server.num"]),
        (["-m", "seed=1,2", "server.num=abc"], ["server.num=abc", "a whole number"]),
        (["-m", "domain=retail,retial"], ["domain=retial", "Did you mean retail?"]),
        (["--num-servers", "4"], ["--num-servers: settings are key=value", "old-flags.md"]),
        (["seed=1", "-m", "domain=mock,bank"], ["domain=bank: there is no such choice"]),
        (["agent/scaffold=xylo"], ["no such choice", "DIR/agent/scaffold/xylo.yaml", "--config-dir DIR"]),
        (["-x"], ["-x: settings are key=value"]),
        (["experiment=smoke", "hydra.run.dir=/proc/nowhere"], ["/proc/nowhere: No such file or directory"]),
        (["resume=nowhere"], ["resume=nowhere: there is no such directory"]),
    ],
)
def test_a_mistake_is_named_in_a_line_or_two_and_leaves_nothing(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    status, out, err = command(tmp_path, *arguments)
    assert status == 1
    assert out == ""
    assert all(word in err for word in words), err
    assert len(err.splitlines()) <= 2
    assert not list(tmp_path.glob("*/*/*"))


def test_the_configuration_can_be_looked_at(tmp_path: Path) -> None:
    status, out, _ = command(tmp_path, "experiment=smoke", "--cfg", "job", CKPT_DIR="/elsewhere")
    assert status == 0
    shown = yaml.safe_load(out)
    assert (shown["agent"]["model"], list(shown["domain"]), shown["server"]["kind"]) == (None, ["mock"], "simulated")
    assert "planted" not in out


@pytest.mark.parametrize(("seed", "expected"), [(0, 0), (1, 1), (2, 130), (3, 3), (4, 1), (130, 130)])
def test_the_exit_status_tells_how_it_ended(seed: int, expected: int, tmp_path: Path) -> None:
    status, out, err = jobs(tmp_path, f"seed={seed}")
    assert status == expected
    assert out == ""
    assert ("Traceback" in err) == (seed == 4)
    assert "planted" not in err
    assert ("error: no server came up" in err) == (seed == 1)


def test_a_sweep_goes_on_after_a_failed_job_and_ends_with_its_worst_status(tmp_path: Path) -> None:
    status, out, err = jobs(tmp_path, "-m", "seed=0,1,3,5")
    assert status == 1
    (sweep,) = run_dirs(tmp_path, "multirun")
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [
        ".hydra",
        "0_seed=0",
        "1_seed=1",
        "2_seed=3",
        "3_seed=5",
    ]
    assert f"sweep: {sweep.relative_to(tmp_path)}" in out
    assert ended(tmp_path) == [
        ("0_seed=0", "seed=0", 0, None),
        ("1_seed=1", "seed=1", 1, "no server came up"),
        ("2_seed=3", "seed=3", 3, None),
        ("3_seed=5", "seed=5", 0, None),
    ]
    assert err.splitlines()[0] == "error: job 1_seed=1: no server came up"
    assert jobs(tmp_path, "-m", "seed=0,3")[0] == 3


def test_a_sweep_tells_of_jobs_that_were_refused_or_broke_in_one_line_without_keys(tmp_path: Path) -> None:
    status, _, err = jobs(tmp_path, "-m", "num_trials=0,1,2", "seed=4")
    assert status == 1
    refused, *broken = ended(tmp_path)
    assert refused[:3] == ("0_num_trials=0", "seed=4", 1)
    assert f"error: job 0_num_trials=0: {refused[3]}" in err.replace("\n", " ")
    text = "RuntimeError: a mistake in the program, with [redacted]"
    assert broken == [(f"{number}_num_trials={number}", "seed=4", 1, text) for number in (1, 2)]


def test_an_interrupt_ends_the_sweep(tmp_path: Path) -> None:
    status, _, _ = jobs(tmp_path, "-m", "seed=1,2,3")
    assert status == 130
    (sweep,) = run_dirs(tmp_path, "multirun")
    assert not (sweep / "2_seed=3").exists()
    assert [status for _, _, status, _ in ended(tmp_path)] == [1, 130]


def test_runs_that_start_together_never_share_a_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda seed: jobs(tmp_path, f"seed={seed}"), (10, 11, 12, 13)))
    assert [status for status, _, _ in ended] == [0, 0, 0, 0]
    assert len(run_dirs(tmp_path)) == 4
    assert all(len(lines_of(folder)) == 1 for folder in run_dirs(tmp_path))


def test_jobs_with_long_and_strange_values_get_plain_directories(tmp_path: Path) -> None:
    task = "'telecom/[mobile_data_issue]" + "|bad_vpn:x" * 25 + "[PERSONA:None]'"
    status, _, err = jobs(tmp_path, "-m", "domain=telecom", f"task_ids=[{task}],[telecom/2]", "seed=5")
    assert status == 0, err
    (sweep,) = run_dirs(tmp_path, "multirun")
    names = [path.name for path in sweep.iterdir() if path.name[0].isdigit()]
    assert len(names) == 2
    assert all(len(name) < 90 and set(name).isdisjoint("[]|:/' ") for name in names)


def test_a_resume_goes_on_in_the_same_directory_with_the_saved_configuration(tmp_path: Path) -> None:
    assert jobs(tmp_path, "seed=7", "agent.model=${oc.env:CKPT_DIR}", CKPT_DIR="/ck,pt")[0] == 0
    (run_dir,) = run_dirs(tmp_path)
    resume = [f"resume={run_dir.relative_to(tmp_path)}"]
    before = (run_dir / ".hydra" / "overrides.yaml").read_text()
    status, _, err = finish(start([*resume, "seed=8", "num_trials=2"], tmp_path, JOBS))
    assert status == 1
    assert "seed (7 then, 8 now)" in err
    assert (run_dir / ".hydra" / "overrides.yaml").read_text() == before
    status, _, err = finish(start([*resume, "num_trials=2", "log_level=DEBUG"], tmp_path, JOBS, CKPT_DIR="/other"))
    assert (status, err) == (0, "")
    status, _, err = finish(start([*resume, "seed=8", "resume_force=true"], tmp_path, JOBS))
    assert (status, err) == (0, "")
    assert [line["seed"] for line in lines_of(run_dir)] == [7, 7, 8]
    assert run_dirs(tmp_path) == [run_dir]
    saved = yaml.safe_load((run_dir / ".hydra" / "config.yaml").read_text())
    assert (saved["num_trials"], saved["seed"], saved["agent"]["model"]) == (2, 8, "/ck,pt")
    for attempt, trials in ((1, 1), (2, 2)):
        kept = yaml.safe_load((run_dir / ".hydra" / f"attempt-{attempt}" / "config.yaml").read_text())
        assert kept["num_trials"] == trials


def test_a_model_from_the_environment_is_remembered(tmp_path: Path) -> None:
    plain = ["user_llm=simulated", "judge=none", "experts=none"]
    checkpoint = tmp_path / "check point"
    checkpoint.mkdir()
    assert finish(start(plain, tmp_path, JOBS, CKPT_DIR=str(checkpoint)))[0] == 0
    (run_dir,) = run_dirs(tmp_path)
    status, _, err = finish(start([f"resume={run_dir}"], tmp_path, JOBS))
    assert (status, err) == (0, "")
    assert [line["model"] for line in lines_of(run_dir)] == [str(checkpoint)] * 2


def test_a_sweep_is_resumed_as_a_whole_and_may_grow(tmp_path: Path) -> None:
    assert jobs(tmp_path, "-m", "domain=mock,telecom", "seed=5,6")[0] == 0
    (sweep,) = run_dirs(tmp_path, "multirun")
    status, _, err = finish(start([f"resume={sweep}", "agent.temperature=0"], tmp_path, JOBS))
    assert status == 1
    assert err.count("agent.temperature (1.0 then, 0.0 now)") == 4
    status, _, err = finish(start([f"resume={sweep}", "seed=4,6,5,7"], tmp_path, JOBS))
    assert status == 1, err
    counts = {path.parent.name.partition("_")[2]: len(lines_of(path.parent)) for path in sweep.glob("*/jobs.jsonl")}
    assert counts == {
        f"domain={domain},seed={seed}": count
        for domain in ("mock", "telecom")
        for seed, count in ((4, 1), (5, 2), (6, 2), (7, 1))
    }
    assert run_dirs(tmp_path, "multirun") == [sweep]


def test_ctrl_c_before_anything_has_begun_is_130_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from tau2_fleet import cli; from tau2_fleet.config import help;"
        "help.text = lambda _: os.kill(os.getpid(), signal.SIGINT); sys.exit(cli.run())"
    )
    process = start(["--help"], tmp_path, code)
    status, _, err = finish(process)
    assert (status, err) == (128 + signal.SIGINT, "")


def test_an_interrupted_sweep_names_the_jobs_that_did_not_begin_and_the_line_to_go_on(tmp_path: Path) -> None:
    status, _, err = jobs(tmp_path, "-m", "seed=4,2,5,6")
    assert status == 130
    assert "2 of 4 jobs did not begin: seed=5, seed=6" in err
    assert re.search(r"^go on: .* resume=multirun/\S+$", err, re.M)
