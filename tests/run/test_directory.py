"""The promises of `tau2_fleet.config` about run directories: names, what is kept in them, who may go on with them."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tau2_fleet.config import Config, compose, load_config
from tau2_fleet.config.quoting import quoted
from tau2_fleet.errors import UserError
from tau2_fleet.run.directory import JobDirectories, load_saved, plain_name, remove_failed_start, swept_keys
from tau2_fleet.run.resume import check_resumable, resumed_arguments, save_sweep


@given(st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_any_path_survives_as_a_quoted_override(text: str) -> None:
    parsed = OverridesParser.create().parse_override(f"resume={quoted(text)}")
    assert OmegaConf.create({"resume": parsed.value()}).resume == text


def test_directories_of_jobs_are_short_plain_and_found_again(tmp_path: Path) -> None:
    swept = swept_keys(["-m", "domain=retail,mock", "seed=choice(1,2)", "num_tasks=3", "not an override"])
    assert swept == ["domain", "seed"]
    jobs = JobDirectories(swept)
    name = jobs.name(0, ["domain=retail", "seed=1", "num_tasks=3"], tmp_path)
    assert name == "0_domain=retail,seed=1"
    assert jobs.name(0, ["domain=retail", "seed=1", "num_tasks=3"], tmp_path) == name
    for number, seed in enumerate((1, 1, 2)):
        (tmp_path / JobDirectories(["seed"]).name(number, [f"seed={seed}"], tmp_path)).mkdir(exist_ok=True)
    twice = JobDirectories(["seed"])
    names = [twice.name(number, [f"seed={seed}"], tmp_path) for number, seed in enumerate((1, 1, 3, 2))]
    assert names == ["0_seed=1", "1_seed=1", "2_seed=3", "2_seed=2"]
    long = "task_ids=['" + "[mobile_data_issue]|bad:vpn/" * 8 + "']"
    assert re.fullmatch(r"[A-Za-z0-9._=,+-]{1,80}", plain_name(long))
    assert plain_name(long) != plain_name(long + "x")


def write_run(run_dir: Path, config: str, overrides: str) -> None:
    (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
    (run_dir / ".hydra" / "config.yaml").write_text(config)
    (run_dir / ".hydra" / "overrides.yaml").write_text(overrides)


def test_a_resume_brings_back_the_arguments_and_writes_into_the_same_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / "a,b c=d's"
    saved = ["agent.model=m", "seed=1", "domain=retail", "resume='x'", "resume_force=true", "hydra.verbose=1", "--cfg"]
    write_run(run_dir, "", OmegaConf.to_yaml(OmegaConf.create(saved)))
    arguments = resumed_arguments(["domain=[retail,mock]", f"resume={run_dir}", "log_level=DEBUG"])
    assert arguments[:4] == ["agent.model=m", "seed=1", "domain=[retail,mock]", "log_level=DEBUG"]
    parsed = {one.key_or_group: one.value() for one in OverridesParser.create().parse_overrides(arguments)}
    assert OmegaConf.create({"d": parsed["hydra.run.dir"]}).d == str(run_dir)
    assert resumed_arguments(["seed=1", "resume=null"]) == ["seed=1", "resume=null"]


def test_a_sweep_is_resumed_as_a_whole(tmp_path: Path) -> None:
    given = ["-m", "seed=1,2", "hydra.sweep.dir=x", "experiment=smoke"]
    save_sweep(given, ["seed=1", "experiment=smoke", "agent.model='m'"], tmp_path)
    arguments = resumed_arguments([f"resume={tmp_path}", "seed=1,2,3"])
    assert arguments[:4] == ["--multirun", "agent.model='m'", "experiment=smoke", "seed=1,2,3"]
    assert f"hydra.sweep.dir='{tmp_path}'" in arguments


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        resumed_arguments([f"resume={tmp_path}/nowhere"])
    with pytest.raises(UserError, match="neither a run's directory nor a sweep's"):
        resumed_arguments([f"resume={tmp_path}"])
    with pytest.raises(UserError, match="not a run directory"):
        load_saved(tmp_path)


def test_a_configuration_that_unfolds_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    write_run(tmp_path, "\n".join(lines), "[]")
    with pytest.raises(UserError, match=r"config.yaml: cannot be read as a configuration: it has aliases"):
        load_saved(tmp_path)


def test_a_resume_with_another_configuration_names_the_keys(tmp_path: Path) -> None:
    def configured(*overrides: str) -> Config:
        return load_config(compose(["agent.model=org/model", *overrides]))

    write_run(tmp_path, OmegaConf.to_yaml(compose(["agent.model=org/model"]), resolve=True), "[]")
    assert load_saved(tmp_path) == configured()
    check_resumable(configured("num_trials=2"), tmp_path)
    with pytest.raises(UserError, match=r"agent.temperature \(1.0 then, 0.0 now\), seed \(300 then, 1 now\)"):
        check_resumable(configured("agent.temperature=0", "seed=1"), tmp_path)
    check_resumable(configured("seed=1", f"resume={tmp_path}", "resume_force=true"), tmp_path)


YAML_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["${a}", "${oc.env:X}", "???"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["agent", "domain", "server", "model", "retail", "num", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.binary(max_size=60) | YAML_LIKE)
def test_a_damaged_run_directory_gives_only_clear_errors(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (Path(folder) / ".hydra").mkdir()
        for name in ("config.yaml", "overrides.yaml"):
            (Path(folder) / ".hydra" / name).write_bytes(raw)
        for attempt in (lambda: load_saved(Path(folder)), lambda: resumed_arguments([f"resume={folder}"])):
            with contextlib.suppress(UserError):
                attempt()


def test_a_failed_start_leaves_nothing_and_whatever_is_worth_a_look_leaves_everything(tmp_path: Path) -> None:
    def start_in(name: str, *more: str) -> Path:
        run_dir = tmp_path / name
        for file in (".hydra/overrides.yaml", ".lock", "simulations.jsonl", "prompts.jsonl", "run.log", *more):
            (run_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (run_dir / file).touch()
        return run_dir

    assert remove_failed_start(start_in("bare", "servers/tasks.json", "wandb/offline-run-1/x.wandb"))
    for name in ("servers/agent-0.log", "wandb/run-1/x.wandb", ".hydra/attempt-1/config.yaml", "my notes.txt"):
        assert not remove_failed_start(start_in(name.replace("/", "_"), name))
        assert (tmp_path / name.replace("/", "_") / name).exists()
    begun = start_in("begun")
    (begun / "prompts.jsonl").write_text("{}\n")
    assert not remove_failed_start(begun)
    assert not (tmp_path / "bare").exists()
