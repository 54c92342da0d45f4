"""A kind of server and a routing rule from a folder of one's own: no file of this program changes for them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.fleet.server_kind import server_kind
from tau2_fleet.llm.types import Endpoint, FatalModelError
from tests.fleet.support import environment_for_runs

PARTS = '''
import os, sys
from tau2_fleet.fleet.server_kind import LaunchedKind

class Player(LaunchedKind):
    """Servers that are started another way than those of this program, and play the tasks."""
    name = "player"
    def __init__(self, tasks): self.tasks = tasks
    def command(self, placement, host, port):
        return [sys.executable, "-m", "tau2_fleet.simserver", "--host", host, "--port", str(port),
                "--tasks", self.tasks, "--model", placement.pool.model, "--role-pool", placement.pool.name,
                "--options", "{}"]
    def environment(self, placement): return {"PYTHONPATH": os.environ["PYTHONPATH"]}

class Turns:
    """Each request to the next replica; writes what it hears to a file."""
    def __init__(self, log): self.log, self.turn = open(log, "a", buffering=1), 0
    def choose(self, session, home, ready, avoid):
        self.turn += 1
        return ready[self.turn % len(ready)]
    def acquired(self, session, replica): self.log.write(f"acquired {replica.endpoint.name}\\n")
    def released(self, session, replica, failed): self.log.write(f"released {replica.endpoint.name}\\n")

class Lines:
    """A tracker that fails at the end."""
    def __init__(self, path): self.path = path
    def start(self, run): open(self.path, "a").write(f"start {run.job_type}\\n")
    def log(self, values): open(self.path, "a").write(f"log {sorted(values)[0]}\\n")
    def finish(self, summary, exit_code):
        open(self.path, "a").write(f"finish {exit_code}\\n")
        raise OSError("the disk of the tracker is full")

class Stubborn:
    def choose(self, session, home, ready, avoid): return "agent/0"
    def acquired(self, session, replica): pass
    def released(self, session, replica, failed): raise OSError("disk full")

class Sulky(Stubborn):
    def choose(self, session, home, ready, avoid): return ready[0]
'''


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    (folder / "conf" / "server").mkdir(parents=True)
    (folder / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return folder


def test_a_run_with_own_servers_an_own_rule_and_an_own_tracker_that_fails_scores_as_ever(
    parts: Path, tmp_path: Path
) -> None:
    """Servers, a routing rule, a tracker that fails; from a folder outside, by `--config-dir` and PYTHONPATH alone."""
    lines = tmp_path / "lines"
    log, run_dir, shown = tmp_path / "log", tmp_path / "run", tmp_path / "shown"
    (parts / "conf" / "wandb").mkdir()
    (parts / "conf" / "wandb" / "lines.yaml").write_text(
        f"defaults: [auto, _self_]\nsink: {{_target_: own_parts.Lines, path: {lines}}}\n"
    )
    first = ["experiment=smoke", "num_tasks=2", "server.num=2"]
    run(parts, *first, "wandb=disabled", f"hydra.run.dir={shown}")
    [tasks] = (shown / "servers").glob("tasks-*.json")
    (parts / "conf" / "server" / "players.yaml").write_text(
        f"kind: {{_target_: own_parts.Player, tasks: {tasks}}}\n"
        f"routing: {{_target_: own_parts.Turns, log: {log}}}\nnum: 2\nstart_port: 0\nmin_ready: 2\n"
    )
    run(parts, "--config-dir", str(parts / "conf"), *first, "server=players", "wandb=lines", f"hydra.run.dir={run_dir}")
    assert lines.read_text().split() == ["start", "evaluation", "log", "cost_usd", "finish", "0"]
    heard = log.read_text().splitlines()
    assert {line.split("/")[-1] for line in heard} == {"0", "1"}
    assert sorted(line.split()[0] for line in heard) == sorted(["acquired", "released"] * (len(heard) // 2))
    assert rewards(run_dir) == rewards(shown) == [1.0, 1.0]


def run(folder: Path, *arguments: str) -> None:
    environment = environment_for_runs()
    environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
    command = [sys.executable, "-m", "tau2_fleet", "run", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + done.stdout


def rewards(run_dir: Path) -> list[float]:
    import json

    return [json.loads(line)["reward"] for line in (run_dir / "simulations.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("Stubborn", "server.routing: Stubborn failed: TypeError: it chose 'agent/0', which is no ready replica"),
        ("Sulky", "server.routing: Sulky failed: OSError: disk full"),
    ],
)
def test_a_rule_that_fails_ends_the_run_with_the_reason(parts: Path, rule: str, told: str) -> None:
    async def scenario() -> None:
        made = PoolRouter("agent", routing_policy(f"own_parts.{rule}"))
        made.add(Endpoint("agent/0", "http://127.0.0.1:1900", "model"))
        if rule == "Sulky":
            made.release(await made.acquire("s"), "s")
        with pytest.raises(FatalModelError) as caught:
            await made.acquire("s")
        assert str(caught.value) == told

    asyncio.run(scenario())


def test_a_kind_or_rule_that_cannot_be_is_named(parts: Path) -> None:
    with pytest.raises(UserError, match=r"server\.kind=vlm: there is none .* only external, simulated, vllm"):
        server_kind("vlm")
    with pytest.raises(UserError, match=r"server\.kind: own_parts\.Turns made a Turns, which has no agent_pool,"):
        server_kind({"_target_": "own_parts.Turns", "log": os.devnull})
    with pytest.raises(UserError, match=r"server\.routing=stiky: .* only least_loaded, random, sticky;"):
        routing_policy("stiky")


def test_kinds_are_equal_where_their_options_are(parts: Path) -> None:
    """Jobs of a sweep share their servers then."""
    one, same, other = (server_kind({"_target_": "own_parts.Player", "tasks": tasks}) for tasks in ("a", "a", "b"))
    assert one == same != other
    assert (repr(one) == repr(same), repr(one) == repr(other)) == (True, False)
