"""What README and docs tell people to type works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tau2_fleet.cli import COMMANDS
from tau2_fleet.config.command_line import for_hydra
from tau2_fleet.config.compose import compose
from tau2_fleet.config.validation import unchecked_config
from tests import warm
from tests.docs.commands import KINDS, ROOT, Shown, shown

ALL = list(shown())
TAKES_KEYS = ("run", "doctor", "serve", "forecast")
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def of_kind(*kinds: str) -> list[object]:
    """Each once, however many pages show it."""
    found = {tuple(one.words): one for one in reversed(ALL) if one.kind in kinds}
    return [pytest.param(one, id=f"{one.page}: {one.line[:60]}") for one in reversed(found.values())]


def test_every_block_says_whether_it_runs_here():
    assert {(one.page, one.kind) for one in ALL if one.kind not in KINDS} == set()
    assert len(of_kind("run")) > 15


def command(words: list[str], directory: Path) -> list[str]:
    """The words behind `tau2-fleet`, with the directory in place of DIR."""
    if words[:3] == ["python", "-m", "src.main"]:
        words = ["tau2-fleet", "run", *words[3:]]
    assert words[0] == "tau2-fleet", words
    filled = (word.replace("$SLURM_ARRAY_TASK_ID", "0").replace("DIR", str(directory)) for word in words[1:])
    return list(filled)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("docs") / "run"
    assert start(["run", "experiment=smoke", f"hydra.run.dir={directory}"], directory.parent).returncode == 0
    return directory


def start(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WANDB_MODE": "disabled", "HOME": str(cwd)}
    return warm.run("tau2_fleet", words, cwd=cwd, env=environment)


@pytest.mark.parametrize("one", of_kind("run"))
def test_a_command_that_can_run_here_does(one: Shown, a_run: Path, tmp_path: Path):
    directory = shutil.copytree(a_run, tmp_path / "run", symlinks=True)
    words = command(one.words, directory)
    if "--candidate" in words:  # another run than the baseline
        other = shutil.copytree(a_run, tmp_path / "other", symlinks=True)
        words[words.index("--candidate") + 1] = str(other)
    done = start(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("one", of_kind("needs=gpu", "needs=key", "needs=data", "needs=cluster"))
def test_the_words_of_a_command_that_cannot_run_here_are_right(one: Shown, tmp_path: Path):
    words = one.words
    if words[0] == "make":
        assert words[1] in TARGETS
        return
    if words[0] not in ("tau2-fleet", "python"):
        return
    name, *rest = command(words, tmp_path)
    assert name in COMMANDS
    if name in TAKES_KEYS and "--multirun" not in rest:
        unchecked_config(compose(for_hydra(rest)))


@pytest.mark.parametrize("one", of_kind("checkout"))
def test_what_make_is_asked_for_is_there(one: Shown):
    words = one.words
    assert words[0] != "make" or words[1] in TARGETS
