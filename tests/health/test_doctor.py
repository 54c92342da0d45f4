"""`tau2-fleet doctor`: what a configuration needs, whether it is there, and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from tau2_fleet.config import compose
from tau2_fleet.health.doctor import main
from tau2_fleet.health.model_checks import KNOWN_KEYS
from tau2_fleet.run.directory import save_composition

CHECKOUT = Path(__file__).resolve().parents[2]
Doctor = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.usefixtures("no_keys")


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*arguments: str, today: Callable[[], date] = date.today) -> tuple[int, str]:
        status = main(list(arguments), today)
        captured = capsys.readouterr()
        assert captured.err == ""
        return status, captured.out

    return run


def _line(text: str, subject: str) -> str:
    return next(line for line in text.splitlines() if line[6:].startswith(subject))


def test_a_configuration_without_needs_can_run(doctor: Doctor) -> None:
    status, text = doctor("experiment=smoke")
    assert status == 0, text
    assert text.rstrip().splitlines()[-1].startswith("this configuration can run")
    assert "mock 9, 1 trial each" in _line(text, "tasks")
    assert "this configuration needs none" in _line(text, "vllm")
    assert _line(text, "benchmark").startswith("ok")
    subjects = {line[6:].split("  ")[0].strip() for line in text.splitlines() if line[6:7].strip()}
    assert {"open files", "disk", "GPUs", "fleet", "vllm", "keys", "W&B"} <= subjects


def test_what_is_missing_fails_with_what_to_do(doctor: Doctor, tmp_path: Path) -> None:
    status, text = doctor("agent.model=Qwen/Qwen3-8B", f"server.executable={tmp_path}/vllm", "--no-calls")
    assert status == 1
    assert _line(text, "vllm").startswith("FAIL")
    assert "FAIL  keys          missing: OPENAI_API_KEY for user, expert-1, expert-2" in text
    others = "llm@user_llm=NAME, llm@experts.expert_1.llm=NAME, llm@experts.expert_2.llm=NAME"
    assert f"→ set them in the environment or in .env, or choose other models (any of conf/llm): {others}" in text
    assert "this configuration could not run: " in text.splitlines()[-1]


def test_a_configuration_that_is_not_one_says_so_and_the_machine_is_examined_all_the_same(doctor: Doctor) -> None:
    status, text = doctor("agent.modell=x")
    assert status == 1
    assert "FAIL  configuration agent.modell: there is no such key. Did you mean agent.model" in text
    assert _line(text, "python").startswith("ok")
    status, text = doctor("--no-calls")
    assert status == 1
    assert _line(text, "configuration").startswith("FAIL  configuration agent.model is not set")
    assert _line(text, "keys").startswith("FAIL")
    found = text.splitlines()
    assert found[found.index(_line(text, "configuration")) + 1].startswith(f"{'':20}Without a model: ")


def test_without_its_key_an_expert_is_planned_where_a_run_would_put_it(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret-0123456789")
    arguments = ("agent.model=/tmp", "server=simulated", "experts=official", "user_llm=gpt-5", "--no-calls")
    _, text = doctor(*arguments)
    assert _line(text, "experts       expert-3: NEBIUS_API_KEY is not set").startswith("note")
    assert _line(text, "keys").startswith("ok")
    assert "Qwen/Qwen3-32B for pool qwen3-32b" in _line(text, "model")
    monkeypatch.setenv("NEBIUS_API_KEY", "nb-verysecret-0123456789")
    assert "pool qwen3-32b" not in doctor(*arguments)[1]


def test_a_place_where_a_run_cannot_write_fails_with_a_reason(doctor: Doctor, tmp_path: Path) -> None:
    status, text = doctor("experiment=smoke", "hydra.run.dir=/proc/nowhere/x")
    assert status == 1
    assert "FAIL  disk          the run (/proc/nowhere/x): /proc cannot be written (No such file" in text
    (tmp_path / "file").touch()
    status, text = doctor("experiment=smoke", f"hydra.run.dir={tmp_path}/file/x")
    assert "cannot be written (Not a directory)" in _line(text, "disk")
    status, text = doctor("experiment=smoke", f"hydra.run.dir={tmp_path}/runs/${{hydra:job.name}}-${{seed}}")
    assert status == 0
    assert f"the run ({tmp_path}/runs/tau2-fleet-300)" in _line(text, "disk")
    assert not (tmp_path / "runs").exists()
    status, text = doctor("experiment=smoke", f"hydra.run.dir={CHECKOUT}")
    assert (status, "is the checkout itself" in _line(text, "configuration")) == (1, True)


def test_a_resumed_run_is_examined_as_it_was_begun(doctor: Doctor, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    begun = ["experiment=smoke", "num_trials=2", "seed=7"]
    tree = compose(begun, with_hydra=True)
    tree.hydra.overrides.task = begun
    save_composition(compose(begun), tree, run_dir)
    status, text = doctor(f"resume={run_dir}")
    assert status == 0, text
    assert "mock 9, 2 trials each" in _line(text, "tasks")
    assert f"the run ({run_dir})" in _line(text, "disk")
    status, text = doctor(f"resume={run_dir}", "seed=8")
    assert status == 1
    assert "begun with another configuration: seed (7 then, 8 now)" in _line(text, "configuration")
    status, text = doctor(f"resume={tmp_path}/none")
    assert (status, "there is no such directory" in _line(text, "configuration")) == (1, True)


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_is_refused_in_a_sentence(doctor: Doctor, flag: str) -> None:
    status, text = doctor("experiment=smoke", flag, "seed=300,301")
    assert status == 1
    assert _line(text, "configuration").startswith("FAIL  configuration a sweep is examined job by job")
    assert "not understood" not in text
    assert "the doctor takes settings" in _line(doctor("experiment=smoke", "-c", "job")[1], "configuration")


def test_the_cache_that_takes_a_download_is_examined_for_room(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    arguments = ("agent.model=Qwen/Qwen3-8B", "experts=none", "--no-calls")
    room = f"free for Qwen/Qwen3-8B ({tmp_path}/hf/hub)"
    assert room in doctor(*arguments)[1]
    _, text = doctor(*arguments, "server.extra_args='--download-dir /proc/x'")
    assert "FAIL  disk          Qwen/Qwen3-8B (/proc/x): /proc cannot be written" in text
    (tmp_path / "hf" / "hub" / "models--Qwen--Qwen3-8B").mkdir(parents=True)
    assert room not in doctor(*arguments)[1]


def test_keys_are_told_as_present_or_not_and_never_shown(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN_KEYS:
        monkeypatch.setenv(name, "sk-verysecret-0123456789")
    _, text = doctor("agent.model=sk-verysecret-0123456789", "--no-calls")
    assert "OPENAI_API_KEY present, NEBIUS_API_KEY present" in text
    assert "verysecret" not in text


def test_before_anything_is_installed_it_says_what_to_type() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tau2_fleet", "doctor"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: the package rich is not installed here; run: make install\n"


def test_help_is_there(doctor: Doctor) -> None:
    status, text = doctor("--help")
    assert status == 0
    assert text.startswith("usage: tau2-fleet doctor")


OFFICIAL = ("agent.model=/tmp", "server=simulated", "experiment=official", "experts.expert_3=null", "--no-calls")


def test_models_whose_end_is_near_are_warned_of_with_their_successors(doctor: Doctor) -> None:
    _, text = doctor(*OFFICIAL, today=lambda: date(2026, 11, 25))
    line = _line(text, "lifetime")
    assert line.startswith("warn  lifetime      gpt-5 (user, expert-1) ends on 2026-12-11, in 16 days")
    assert "→ user_llm=gpt-6.1-sol experts=current takes its successor" in text


def test_models_that_have_ended_fail_with_the_ways_out(doctor: Doctor) -> None:
    status, text = doctor(*OFFICIAL, today=lambda: date(2026, 12, 12))
    assert status == 1
    line = _line(text, "lifetime")
    assert line.startswith(
        "FAIL  lifetime      experiment=official cannot be run any longer: gpt-5 (user, expert-1) ended"
    )
    assert "→ Ways out: leave out experiment=official" in text
    _, text = doctor(*OFFICIAL[:2], "experts=none", "--no-calls", today=lambda: date(2026, 12, 12))
    assert _line(text, "lifetime") == "ok    lifetime      user: gpt-6.1-sol, no end announced (looked 2026-11-25)"
