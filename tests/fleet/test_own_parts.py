"""Kinds of servers and of hosts and a routing rule of one's own: no file of this program changes for them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.fleet.server_kind import LaunchedKind, Placement, PoolSpec, server_kind
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import FatalModelError
from tests import warm
from tests.examples import write_examples
from tests.fleet.support import environment_for_runs

PARTS = """
import lines

class Failing(lines.Lines):
    def finish(self, summary, exit_code):
        super().finish(summary, exit_code)
        raise OSError("the disk of the tracker is full")

class Stubborn:
    def choose(self, session, home, ready, avoid): return "agent/0"
    def acquired(self, session, replica): pass
    def released(self, session, replica, failed): raise OSError("disk full")

class Sulky(Stubborn):
    def choose(self, session, home, ready, avoid): return ready[0]
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    write_examples(folder)
    (folder / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(folder))
    kubectl = folder / "kubectl"  # as it is called: exec -i -n NAMESPACE HOST -- COMMAND
    kubectl.write_text(
        '#!/bin/sh\nset -e\n[ "$1 $2 $3 $6" = "exec -i -n --" ]\necho "$4 $5" >>pods.txt\nshift 6\nexec "$@"\n'
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("own_parts", "program", "turns", "lines"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_a_run_with_own_servers_on_own_hosts_an_own_rule_and_an_own_tracker_that_fails_scores_as_ever(
    parts: Path, tmp_path: Path
) -> None:
    """Those of docs/extending.md, from a folder outside, by `--config-dir` and PYTHONPATH alone."""
    run_dir, shown = tmp_path / "run", tmp_path / "shown"
    first = ["experiment=smoke", "num_tasks=2", "server.num=2", "max_concurrency=1", "report=false"]
    run(parts, *first, "wandb=disabled", f"hydra.run.dir={shown}")
    [tasks] = (shown / "servers").glob("tasks-*.json")
    line = f"env PYTHONPATH={environment_for_runs()['PYTHONPATH']} {sys.executable} -m tau2_fleet.simserver "
    line += f"--tasks {tasks} --host {{host}} --port {{port}} --model {{model}}"
    run(
        parts, "--config-dir", "conf", *first, "server=program", f"server.kind.line='{line}'", "server.start_port=0",
        "server.min_ready=2",
        "hosts=pods", "hosts.names=[pod-a,pod-b]", "hosts.kind.namespace=ml", f"hosts.python={sys.executable}",
        "server.routing={_target_: turns.Turns, step: 3}", "wandb=lines", "wandb.sink._target_=own_parts.Failing",
        f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    assert sorted((parts / "pods.txt").read_text().split("\n")) == ["", "ml pod-a", "ml pod-b"]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {replica["host"] for replica in summary["fleet"]["replicas"]} == {"pod-a", "pod-b"}
    heard = [line.split() for line in (parts / "lines.txt").read_text().splitlines()]
    # A slow machine logs more than once.
    assert ([words[0] for words in heard[:2]], heard[-1][0]) == (["start", "log"], "finish")
    assert (heard[0][-1], heard[-2][1], heard[-1][1]) == (str(run_dir), "2", "0")
    records = [json.loads(line) for line in (run_dir / "simulations.jsonl").read_text().splitlines()]
    asked = [call["replica"] for record in records for call in record["calls"] if call["role"] == "agent"]
    assert len(asked) > 3
    assert all(one != other for one, other in pairwise(asked)), "a sticky rule stays with one"
    assert rewards(run_dir) == rewards(shown) == [1.0, 1.0]


def run(folder: Path, *arguments: str) -> None:
    environment = environment_for_runs()
    environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
    done = warm.run("tau2_fleet", ["run", *arguments], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout


def rewards(run_dir: Path) -> list[float]:
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
    with pytest.raises(UserError, match=r"server\.kind=vlm: there is none .* only absent, external, simulated, vllm"):
        server_kind("vlm")
    with pytest.raises(UserError, match=r"server\.kind: turns\.Turns made a Turns, which has no agent_pool,"):
        server_kind({"_target_": "turns.Turns", "step": 2})
    with pytest.raises(UserError, match=r"server\.routing=stiky: .* only least_loaded, random, sticky;"):
        routing_policy("stiky")


def test_kinds_are_equal_where_their_options_are(parts: Path) -> None:
    """Jobs of a sweep share their servers then."""
    one, same, other = (server_kind({"_target_": "program.Program", "line": line}) for line in ("a", "a", "b"))
    assert one == same != other
    assert (repr(one) == repr(same), repr(one) == repr(other)) == (True, False)


def test_a_kind_that_can_start_nothing_is_said_to_be_one() -> None:
    class Idle(LaunchedKind):
        name = "idle"

    kind = Idle()
    placement = Placement(PoolSpec(name="agent", kind=kind, model="m"), 0, 0, ())
    with pytest.raises(UserError, match="Idle has neither `command` nor `prepare`"):
        kind.command(placement, "127.0.0.1", 1900)
