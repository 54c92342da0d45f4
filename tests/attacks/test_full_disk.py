"""A disk that is really full, before a run, in the middle of it and at its end; few file descriptors."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.cli import main
from tests.run.runs import ROOT, assert_no_server_remains, command, env, keys, summary

_ROOMY = "16m"
NO_SPACE = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which `resize` gives room."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_ROOMY}", "none", place], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(None, *words), cwd=ROOT, env=env({}), capture_output=True, text=True, timeout=300, **more
    )


@pytest.mark.parametrize("size", ["16k", "40k", "100k"])
def test_a_run_on_a_full_disk_says_so_and_goes_on_where_it_was_once_there_is_room(disk: Path, size: str) -> None:
    """What fails is its start, its record, its results."""
    resize(disk, size)
    done = run("experiment=smoke", "wandb=offline", "report=false", f"hydra.run.dir={disk / 'run'}")
    assert done.returncode == 1
    assert NO_SPACE in done.stderr.splitlines()[-1] + done.stderr.splitlines()[-2]
    assert "Traceback" not in done.stderr
    assert_no_server_remains(disk / "run")
    kept = keys(disk / "run") if (disk / "run" / "simulations.jsonl").is_file() else {}
    assert bool(kept) == (size == "100k") or size == "40k"
    resize(disk, _ROOMY)
    again = f"resume={disk / 'run'}" if kept else f"hydra.run.dir={disk / 'run'}"
    assert not kept or again in done.stderr
    assert run(*(["experiment=smoke", "report=false"] if not kept else []), again).returncode == 0
    assert set(keys(disk / "run").values()) == {1}
    assert summary(disk / "run")["inventory"]["overall"]["finished"] == 9


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert run("experiment=smoke", f"hydra.run.dir={run_dir}").returncode == 0
    return run_dir


@pytest.mark.parametrize(
    "words",
    ["report RUN", "report RUN -o DISK/page.html", "export RUN --format csv", "export RUN --format parquet",
     "export RUN --format inspect", "export RUN --format sft --all", "rescore RUN --output DISK/again",
     "analyze RUN", "merge RUN -o DISK/merged", "compare --baseline RUN --candidate OTHER -o DISK/page.html"],
)  # fmt: skip
def test_a_command_on_a_full_disk_ends_with_1_and_leaves_what_was_there(
    disk: Path, finished: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, disk / "run")
    before = {path: path.read_bytes() for path in (disk / "run").rglob("*") if path.is_file()}
    fill(disk)
    places = {"RUN": disk / "run", "OTHER": finished, "DISK/again": disk / "again"}
    arguments = [str(places.get(word, word.replace("DISK", str(disk)))) for word in words.split()]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert f"error: cannot write {disk}" in told
    assert NO_SPACE in told
    assert {path: path.read_bytes() for path in before} == before
    there = {path for path in disk.rglob("*") if path.is_file() and path.stat().st_size}
    assert there <= {*before, disk / "filler"}


def test_show_reads_a_run_on_a_full_disk(disk: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, disk / "run")
    fill(disk)
    assert main(["show", str(disk / "run")]) == 0
    assert "8 of 9 with reward 1" in capsys.readouterr().out


def test_a_wandb_that_finds_no_room_costs_the_run_nothing(disk: Path, tmp_path: Path) -> None:
    """Its own folder alone is on the full disk."""
    resize(disk, "60k")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").symlink_to(disk)
    done = run("experiment=smoke", "wandb=offline", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert NO_SPACE in done.stderr
    assert "Traceback" not in done.stderr
    assert summary(tmp_path / "run")["exit_status"] == 0


@pytest.mark.parametrize(("limit", "settings", "status"), [
    (16, [], 1), (40, ["max_concurrency=9"], 1), (64, ["max_concurrency=20", "num_trials=9"], 0), (64, [], 0),
])  # fmt: skip
def test_few_file_descriptors_are_enough_or_are_said_to_be_too_few(
    tmp_path: Path, limit: int, settings: list[str], status: int
) -> None:
    done = run(
        "experiment=smoke", "report=false", f"hydra.run.dir={tmp_path / 'run'}", *settings,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert (f"this process may have {limit}" in done.stderr) == bool(status)
    assert (tmp_path / "run").exists() == (status == 0)
    assert_no_server_remains(tmp_path / "run")
