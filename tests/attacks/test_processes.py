"""Parts of a run that are frozen, ended or killed, alone and in every order: the run ends, and nothing outlives it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.run.runs import ROOT, command, env, records, stored
from tests.waiting import wait_for

PARTS = {
    "server": "tau2_fleet.simserver",
    "wandb": "tau2_fleet.tracking.process",
    "reaper": "tau2_fleet.fleet.reaper.reaper",
    "watcher": "fleet/reaper/watcher.py",
}
BLOWS = {
    "killed": signal.SIGKILL, "frozen": signal.SIGSTOP, "ended": signal.SIGTERM, "woken": signal.SIGCONT,
    "interrupted": signal.SIGINT, "hung up": signal.SIGHUP, "quit": signal.SIGQUIT,
}  # fmt: skip
SURVIVED = (
    "server killed", "server frozen", "server ended", "reaper killed", "reaper frozen", "wandb killed", "wandb frozen",
    "watcher killed", "server killed, reaper killed", "runner frozen, runner woken",
)  # fmt: skip
ENDED = {
    "runner ended, runner interrupted, runner hung up": 130,
    "runner interrupted": 130,
    "runner ended": 130,
    "runner hung up": 130,
    "runner quit": -3,
    "runner killed": -9,
}
GUARDS_LOST = (
    "runner killed, reaper killed, watcher killed", "reaper killed, runner killed, watcher killed",
    "watcher killed, reaper killed, runner killed",
)  # fmt: skip
_GONE_S = 30
_FROZEN_S = 4
_AT_ONCE = 4


def _heed_quit() -> None:
    """A shell's background commands ignore SIGQUIT, and so would all that they start."""
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Run:
    """A run, and all its processes."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.run_dir, self._home = folder / "run", str(folder)
        self.process = psutil.Popen(
            command(
                self.run_dir, "experiment=smoke", "report=false", "wandb=offline", "limits.grace_s=1",
                "server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.02", *overrides,
            ),
            cwd=ROOT, env=env({"HOME": self._home}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_heed_quit,
        )  # fmt: skip
        wait_for(lambda: stored(self.run_dir) or self.process.poll() is not None)

    def strike(self, blows: str) -> None:
        """Deal these blows, as `server killed, runner frozen`."""
        for words in blows.split(", "):
            part, _, blow = words.partition(" ")
            if blow == "woken":
                time.sleep(_FROZEN_S)
            self._process_of(part).send_signal(BLOWS[blow])

    def _process_of(self, part: str) -> psutil.Process:
        if part == "runner":
            return self.process
        found: list[psutil.Process] = wait_for(lambda: self.processes(PARTS[part]))
        return found[0]

    def processes(self, word: str = "") -> list[psutil.Process]:
        """All that it has started has a home of its own; what guards it names the runner's pid instead."""
        found = []
        for one in psutil.process_iter():
            try:
                words = one.cmdline()
                guards = str(self.process.pid) in words and "fleet.reaper" in " ".join(words).replace("/", ".")
                if word in " ".join(words) and (guards or one.environ().get("HOME") == self._home):
                    found.append(one)
            except psutil.Error:  # it has just ended
                continue
        return found


@dataclass
class Struck:
    """What became of a run."""

    status: int
    output: str
    left: Sequence[str]
    """Commands of processes that were there long after its end."""
    run_dir: Path


def strike(folder: Path, blows: str) -> Struck:
    folder.mkdir()
    overrides = ["num_trials=100", "max_concurrency=2"]
    if blows in SURVIVED:
        overrides = ["num_trials=3", "max_concurrency=4", "server.num=2"]
    if "woken" in blows:
        overrides.append(f"limits.call_timeout_s={_FROZEN_S - 1}")
    run = Run(folder, *overrides)
    try:
        if run.process.poll() is None:
            run.strike(blows)
        output = run.process.communicate(timeout=300)[0].decode()
        with suppress(AssertionError):
            wait_for(lambda: not run.processes(), _GONE_S)
        left = [" ".join(one.as_dict(["cmdline"])["cmdline"] or ()) for one in run.processes()]
        return Struck(run.process.returncode, output, left, run.run_dir)
    finally:
        for one in run.processes():
            with suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Struck]]]:
    """The runs by what is done to them; mostly they wait, so some of them go on at once."""
    folder = tmp_path_factory.mktemp("struck")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        blows = [*SURVIVED, *ENDED, *GUARDS_LOST]
        yield {each: pool.submit(strike, folder / str(n), each) for n, each in enumerate(blows)}


@pytest.mark.parametrize("blows", SURVIVED)
def test_a_part_that_is_struck_costs_no_simulation(struck: dict[str, Future[Struck]], blows: str) -> None:
    run = struck[blows].result()
    assert run.status == 0, run.output
    assert "Traceback" not in run.output
    assert [record["termination_reason"] for record in records(run.run_dir)] == ["user_stop"] * 27
    assert not run.left


@pytest.mark.parametrize("blows", ENDED)
def test_a_signal_ends_everything(struck: dict[str, Future[Struck]], blows: str) -> None:
    run = struck[blows].result()
    assert run.status == ENDED[blows], run.output
    assert "Traceback" not in run.output
    assert not run.left


@pytest.mark.parametrize("blows", GUARDS_LOST)
def test_whatever_guards_is_killed_with_the_runner_and_no_server_stays(
    struck: dict[str, Future[Struck]], blows: str
) -> None:
    run = struck[blows].result()
    assert run.status == -9, run.output
    assert not run.left
