"""The package as others install it: a wheel that works whole from any directory, and the commands that it prints."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tau2_fleet import invocation
from tau2_fleet.invocation import typed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and of this one nothing but the packages that it declares."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=False)
    [packages] = (folder / "environment").glob("lib/python*/site-packages")
    python = folder / "environment" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    names = {path.name.partition("-")[0].partition(".")[0] for path in packages.iterdir()}
    assert {name for name in names if not name.startswith("_")} == {"tau2_fleet"}
    (packages / "declared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "environment" / "bin"


def run(command: list[str], folder: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PATH"] = path + os.pathsep + environment["PATH"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def command_to_look(told: str) -> str:
    """What the end of a run says to type next."""
    [command] = [line.removeprefix("look:") for line in told.splitlines() if line.startswith("look:")]
    return command.strip()


def test_the_wheel_runs_whole_from_an_empty_folder_and_prints_a_command_that_runs_there(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("WANDB_MODE=disabled\n")
    process = run([str(installed / "tau2-fleet"), "run", "experiment=smoke"], tmp_path)
    assert process.returncode == 0, process.stderr
    assert {path.name for path in tmp_path.iterdir()} == {".env", "outputs"}
    [record] = tmp_path.glob("outputs/*/*/simulations.jsonl")
    assert len(record.read_bytes().splitlines()) == 9
    look = command_to_look(process.stdout)
    shown = run(["bash", "-c", look], tmp_path)
    assert shown.returncode == 0, (look, shown.stderr)
    assert "update_task_with_history" in shown.stdout
    looked = run([str(installed / "tau2-fleet"), "doctor", "experiment=smoke"], tmp_path)
    assert looked.returncode == 0, looked.stdout


def test_a_run_by_src_main_prints_a_command_that_runs_where_tau2_fleet_is_not_at_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.main", "experiment=smoke", f"hydra.run.dir={tmp_path / 'a run'}"]
    process = run(command, ROOT, path="/usr/bin")
    assert process.returncode == 0, process.stderr
    look = command_to_look(process.stdout)
    assert " show " in look
    shown = run(["bash", "-c", look], ROOT, path="/usr/bin")
    assert shown.returncode == 0, (look, shown.stderr)


@pytest.mark.parametrize(
    ("started", "on_path", "resume"),
    [
        ("ENV/bin/tau2-fleet", True, "tau2-fleet run 'resume=a b'"),
        ("ENV/bin/tau2-fleet", False, "ENV/bin/tau2-fleet run 'resume=a b'"),
        ("SRC/main.py", True, "tau2-fleet run 'resume=a b'"),
        ("SRC/main.py", False, "ENV/bin/python -m src.main 'resume=a b'"),
        ("SRC/tau2_fleet/__main__.py", False, "ENV/bin/python -m tau2_fleet run 'resume=a b'"),
        ("/somewhere/pytest", False, "tau2-fleet run 'resume=a b'"),
    ],
)
def test_printed_commands_are_what_the_user_would_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, on_path: bool, resume: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python", "tau2-fleet"):
        (programs / name).touch(mode=0o755)

    def filled(text: str) -> str:
        return text.replace("ENV", str(tmp_path)).replace("SRC", str(ROOT / "src"))

    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", [filled(started)])
    monkeypatch.setattr(invocation, "CHECKOUT", ROOT)
    monkeypatch.setenv("PATH", str(programs) if on_path else "/nowhere")
    assert typed("run", "resume=a b") == filled(resume)
    monkeypatch.chdir(tmp_path)
    assert typed("run", "resume=a b") == filled(resume).replace(f"{tmp_path}/bin/", "bin/")
