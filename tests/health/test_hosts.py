"""What the doctor says of SLURM: what a lost node or a cancelled job would do to a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.far.hosts import Reached
from tau2_fleet.health import hosts
from tau2_fleet.health.finding import FindingState


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("#!/bin/bash\n#SBATCH --no-kill -N2\nrun", FindingState.ok),
        ("#SBATCH -N2 -k\nrun", FindingState.ok),
        ("#SBATCH -N2\nsrun --no-kill run", FindingState.warning),
        (None, FindingState.note),
    ],
)
def test_whether_a_job_survives_the_loss_of_a_node_is_read_from_its_script(
    script: str | None, state: FindingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*command: str) -> str:
        assert command[-2:] == ("7", "-")
        if script is None:
            raise UserError("no scontrol")
        return script

    monkeypatch.setattr(hosts, "said", said)
    monkeypatch.setattr(hosts, "allocated_nodes", lambda: [SimpleNamespace(gpus=4), SimpleNamespace(gpus=2)])
    monkeypatch.setattr(hosts, "kill_wait_s", lambda: 30.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    nodes, survives, *more = hosts._of_slurm(settings(grace_s=20.0), host("slurm"), real=True)
    assert (nodes.state, "2 node(s) with 6 GPU(s)" in nodes.text) == (FindingState.ok, True)
    assert survives.state is state
    assert more == []


@pytest.mark.parametrize(("kill_wait", "grace_s", "told"), [(30, 20, 0), (30, 21, 1), (None, 99, 0)])
def test_a_grace_that_slurm_does_not_give_is_said(
    kill_wait: float | None, grace_s: float, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "kill_wait_s", lambda: kill_wait)
    found = hosts._of_slurm(settings(grace_s=grace_s), host("local"), real=False)
    assert ["KillWait" in finding.text for finding in found] == [True] * told


@pytest.mark.parametrize(("there", "real", "by_hand"), [(True, True, False), (True, True, True), (True, False, False)])
def test_a_login_node_is_no_place_for_real_servers_unless_said_by_hand(
    there: bool, real: bool, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "kill_wait_s", lambda: None)
    monkeypatch.setattr(hosts, "on_login_node", lambda: there)
    found = hosts._of_slurm(settings(login_node=by_hand), host("local"), real)
    assert [finding.state for finding in found] == ([FindingState.problem] if real and not by_hand else [])


def host(name: str) -> Any:
    return SimpleNamespace(name=name)


def settings(grace_s: float = 0.0, *, login_node: bool = False) -> Any:
    return SimpleNamespace(hosts=SimpleNamespace(login_node=login_node), limits=SimpleNamespace(grace_s=grace_s))


def reached(look: Callable[[Path], list[Any] | None], *, with_program: bool = True) -> Reached:
    """A host that sees files so."""

    def ask(do: str, programs: list[str], files: list[str]) -> tuple[int, Future[Any]]:
        assert do == "look"
        future: Future[Any] = Future()
        there = dict.fromkeys(programs, "/bin/it" if with_program else None)
        future.set_result({"programs": there, "files": {file: look(Path(file)) for file in files}})
        return 1, future

    link: Any = SimpleNamespace(ask=ask)
    return Reached(link, "n1", "10.0.0.1", ("0", "1"))


@pytest.mark.parametrize(
    ("found", "here", "real", "told"),
    [
        (
            reached(lambda file: [file.read_text(), True]),
            True,
            True,
            "n1 answers; servers listen on 10.0.0.1, GPUs 0,1",
        ),
        (reached(lambda file: [file.read_text(), False]), True, True, "n1 does not feel locks in DIR"),
        (reached(lambda file: None), True, True, "n1 does not see DIR"),
        (reached(lambda file: ["of another file system", True]), True, True, "n1 does not see DIR"),
        (reached(lambda file: None), False, True, "n1 answers; servers listen on 10.0.0.1, GPUs 0,1"),
        (reached(lambda file: None, with_program=False), False, True, "n1: server.executable=vllm is not there"),
        (reached(lambda file: None, with_program=False), False, False, "n1 answers"),
        ("no way there", True, True, "n1: no way there"),
    ],
)
def test_of_each_host_it_is_said_whether_it_sees_the_run_and_has_the_program(
    found: Reached | str, here: bool, real: bool, told: str, tmp_path: Path
) -> None:
    async def visit() -> list[tuple[str, Reached | str]]:
        return [("n1", found)]

    hosts_: Any = SimpleNamespace(visit=visit, here=here)
    config: Any = SimpleNamespace(server=SimpleNamespace(executable="vllm --flag"))
    (finding,) = asyncio.run(hosts._each(hosts_, config, real, tmp_path / "runs" / "one"))
    assert finding.text.startswith(told.replace("DIR", str(tmp_path)))
    assert (finding.state is FindingState.ok) == ("answers" in told)
    assert list(tmp_path.iterdir()) == []
