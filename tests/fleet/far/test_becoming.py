"""A process on a far host that becomes a server: it waits at its gate, hears signals, and ends with its starter."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from tau2_fleet.fleet.far.program import _become
from tests.waiting import CEILING_S


def started(command: list[str], cwd: str, said: bytes | None) -> tuple[int, int]:
    """A child that becomes a command once its gate is opened with `said`, or closed; its pid, and what it writes to."""
    gate, opened = os.pipe()
    output, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opened)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _become(command, {"HOME": "/", "PATH": os.environ["PATH"]}, cwd, gate, written)
        os._exit(99)
    for descriptor in (gate, written):
        os.close(descriptor)
    if said is not None:
        os.write(opened, said)
    os.close(opened)
    return pid, output


def told(output: int) -> str:
    """All that it writes until it ends."""
    with os.fdopen(output, "rb") as file:
        return file.read().decode()


def test_it_begins_once_it_is_known_and_hears_signals_as_any_program(tmp_path: Path) -> None:
    script = "pwd; ps -o sid= -p $$ >/dev/null; echo $$; kill -TERM $$; echo deaf"
    pid, output = started(["sh", "-c", script], str(tmp_path), b"go")
    assert told(output).splitlines() == [str(tmp_path), str(pid)]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    pid, output = started(["sh", "-c", "pwd; echo it >&2"], str(tmp_path / "none"), b"go")
    assert told(output) == "/\nit\n"
    assert os.waitpid(pid, 0)[1] == 0


def test_without_a_word_it_never_begins(tmp_path: Path) -> None:
    pid, output = started(["echo", "here"], str(tmp_path), None)
    assert told(output) == ""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    pid, output = started([str(tmp_path / "none")], str(tmp_path), b"go")
    assert told(output) == f"gate: cannot run {tmp_path / 'none'}: No such file or directory\n"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (0, 99)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    starter = os.fork()
    if starter == 0:
        _, output = started(["sh", "-c", "echo up; exec sleep 600"], str(tmp_path), b"go")
        os.read(output, 3)
        os._exit(0)  # the writing end of our pipe is the server's alone from here on
    os.close(writing)
    os.waitpid(starter, 0)
    ready, _, _ = select.select([reading], [], [], CEILING_S)
    assert ready, "the server still holds the pipe"
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_no_signal_stays_unheard(number: int, tmp_path: Path) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        pid, output = started(["grep", "SigIgn", "/proc/self/status"], str(tmp_path), b"go")
    finally:
        signal.signal(number, before)
    ignored = int(told(output).split()[1], 16)
    os.waitpid(pid, 0)
    assert not ignored & 1 << (number - 1)
