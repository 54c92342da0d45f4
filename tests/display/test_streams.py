"""Standard output and error: no key on them, and no run that ends because nobody can read what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.display.streams import GuardedStream, guarded_streams
from tau2_fleet.telemetry import secrets
from tests.run.runs import ROOT, env

KEY = "key-of-a-stream-0123456789"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "redactor", secrets.Redactor([KEY]))


@pytest.mark.usefixtures("known")
def test_whatever_is_printed_holds_no_key(capfd: pytest.CaptureFixture[str]) -> None:
    from tau2_fleet.display.console import err, out

    with guarded_streams():
        print(f"printed {KEY}")
        sys.stderr.writelines([f"written {KEY}\n"])
        out.print(f"shown {KEY}")
    err.print(f"told {KEY}")
    shown = capfd.readouterr()
    assert shown.out == "printed [redacted]\nshown [redacted]\n"
    assert shown.err == "written [redacted]\ntold [redacted]\n"


def test_signs_that_an_encoding_lacks_become_escapes(tmp_path: Path) -> None:
    with (tmp_path / "ascii").open("w", encoding="ascii") as file:
        assert GuardedStream(file).write("τ²\n") == 3
    assert (tmp_path / "ascii").read_text() == "\\u03c4\\xb2\n"


@pytest.mark.parametrize("unbuffered", [True, False])
def test_a_full_output_is_told_once_on_the_other(unbuffered: bool) -> None:
    command = [sys.executable, *(["-u"] if unbuffered else []), "-m", "tau2_fleet", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, env=env({}), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: standard output could not be written (No space left on device)\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tau2_fleet", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=env({}), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    line = f"exec {sys.executable} -m tau2_fleet --help {closed}"
    assert subprocess.run(["sh", "-c", line], cwd=ROOT, env=env({}), capture_output=True).returncode == 0


def test_what_was_printed_is_out_at_the_end_though_a_stream_keeps_some_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with guarded_streams():
            print("kept back")
            assert (tmp_path / "out").read_text() == ""
        assert sys.stdout is file
        assert (tmp_path / "out").read_text() == "kept back\n"


def test_what_a_reader_that_left_did_not_read_is_forgotten() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        guard = GuardedStream(file)
        for _ in range(2):
            guard.write("nobody reads this")
            guard.flush()
        assert guard.problem is None
        file.flush()  # as Python does once more at the end of a program
