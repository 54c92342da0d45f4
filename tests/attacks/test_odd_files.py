"""Something else in the place of a run's file: one clear line or what can be read, in bounded time and memory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tau2_fleet import cli, regular
from tau2_fleet.compare.gate import read_policy
from tau2_fleet.config.command_line import for_hydra
from tau2_fleet.config.tasks import read_task_ids
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.fleet.external_servers import read_model_config
from tau2_fleet.review.labels import read_labels
from tests.run.runs import run
from tests.waiting import CEILING_S

FILES = (
    "simulations.jsonl", "summary.json", "profile.jsonl", "prompts.jsonl", "trace.json", "mock.json", "reviews.jsonl",
    "control.json", "run.log", ".lock", ".hydra/config.yaml", ".hydra/overrides.yaml",
)  # fmt: skip


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def _holes(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**31)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "holes": _holes,
    "folder": Path.mkdir,
    "link to itself": lambda path: path.symlink_to(path.name),
    "deep": lambda path: path.write_text("[" * 200_000 + "\n"),
    "number": lambda path: path.write_text("9" * 10_000 + "\n"),
    "nothing": lambda path: path.write_text("{}\n"),
}

OF_ALL = ("pipe", "holes", "folder", "nothing")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("odd") / "run"
    assert run(run_dir, "experiment=smoke", "num_tasks=2", "report=false").returncode == 0
    return run_dir


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever waits or reads without end fails; lines of a megabyte are too long already."""
    monkeypatch.setattr(regular, "LONGEST_LINE", 2**20)
    monkeypatch.setattr(regular, "LARGEST_WHOLE", 2**20)

    def over(number: int, frame: object) -> None:
        raise AssertionError("waited in vain")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(int(CEILING_S))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("file", "kind"), [(file, kind) for file in FILES for kind in KINDS if kind in OF_ALL or file in FILES[:3]]
)
def test_every_command_says_what_it_cannot_read(
    file: str,
    kind: str,
    finished: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "run", symlinks=True)
    path = tmp_path / "run" / file
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    for words in (
        ["show", "run", "--task", "create_task_1"], ["analyze", "run", "--no-plots", "--output", "figures"],
        ["report", "run", "-o", "page.html"], ["merge", "run", "-o", "merged"], ["ctl", "status", "run"],
    ):  # fmt: skip
        status = cli.main(words)
        told = capfd.readouterr()
        assert status in (*ExitStatus,), words
        assert len(told.err.splitlines()) <= 4, words
        assert "Traceback" not in told.err, words
        assert status != ExitStatus.FAILED or "error: " in told.err, words


READERS: dict[str, Callable[[Path], object]] = {
    "tasks": read_task_ids,
    "labels": read_labels,
    "policy": read_policy,
    "servers": lambda path: read_model_config(path, None, "server.model_config"),
}


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "link to itself", "holes"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_a_command_line_names_is_read_or_refused(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(regular, "PIPE_WAIT_S", 0)
    KINDS[kind](tmp_path / "named")
    with pytest.raises(UserError, match="named"):
        READERS[reader](tmp_path / "named")


def test_what_a_shell_hands_on_by_a_pipe_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular, "PIPE_WAIT_S", CEILING_S)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"exec > '{pipe}'; echo mock/one; echo mock/two"]):
        assert read_task_ids(pipe) == ["mock/one", "mock/two"]


@pytest.mark.parametrize("setting", ["hydra.run.dir=", "hydra.sweep.dir=''", "resume="])
def test_a_directory_without_a_name_is_not_the_working_directory(setting: str) -> None:
    with pytest.raises(UserError, match="it names no directory"):
        for_hydra(["experiment=smoke", setting])
