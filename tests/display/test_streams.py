"""Standard output and error: no key on them, and no run that ends because nobody can read what it says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.display.streams import GuardedStream, forget_reader, guarded_streams
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


class Full(io.StringIO):
    """A stream of a file system without room, as far as it is told so."""

    encoding = "latin-1"  # type: ignore[assignment]

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.flushed = 0

    def write(self, text: str) -> int:
        text.encode(self.encoding)
        raise self.error

    def flush(self) -> None:
        self.flushed += 1
        if self.flushed == 1:
            raise self.error


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (BrokenPipeError(32, "Broken pipe"), None),
    ],
)
def test_why_something_could_not_be_written_is_kept(error: OSError, problem: str | None) -> None:
    for method in (lambda guard: guard.write("x"), lambda guard: guard.flush()):
        guard = GuardedStream(Full(error))
        method(guard)
        assert guard.problem == problem


def test_signs_that_an_encoding_has_stay_beside_escapes(tmp_path: Path) -> None:
    with (tmp_path / "latin").open("w", encoding="latin-1") as file:
        GuardedStream(file).write("τ²\n")
    assert (tmp_path / "latin").read_text("latin-1") == "\\u03c4²\n"


def test_what_a_guard_cannot_write_to_leaves_no_descriptor_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        before = descriptors()
        forget_reader(file)
        forget_reader(io.StringIO())
        assert descriptors() == before
    os.close(reading)


def test_streams_that_block_and_nothing_in_place_of_closed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", None)
        with guarded_streams() as guard:
            assert os.get_blocking(writing)
            assert (sys.stdout, guard.fileno()) == (guard, writing)
            sys.stderr.write("nobody hears this")
            sys.stderr.flush()
        assert (sys.stdout, sys.stderr) == (file, None)
    os.close(reading)
