"""Fleets of fake servers for the tests of this folder: real processes, ready in a moment."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device, ServerSettings
from tau2_fleet.fleet.watch import WatchSettings
from tau2_fleet.telemetry.events import Event, subscribe

FAKE = Path(__file__).parent / "fakes" / "fake_vllm.py"
QUICK = WatchSettings(
    process_s=0.05,
    health_s=0.3,
    health_timeout_s=5.0,
    recheck_s=0.1,
    start_poll_s=0.05,
    backoff_s=0.1,
    grace_s=1.5,
    external_patience_s=1.0,
)


def fake_executable(folder: Path) -> str:
    """A program `vllm` that is the fake server."""
    program = folder / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} "$@"\n')
    program.chmod(0o755)
    return str(program)


def fake_model(folder: Path) -> str:
    """A directory that passes for a checkpoint."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return str(model)


def fake_settings(folder: Path, **changes: Any) -> ServerSettings:
    """Settings for fake servers on free ports."""
    chosen: dict[str, Any] = {
        "start_port": 0,
        "device": Device.cpu,
        "executable": fake_executable(folder),
        "ready_timeout_s": 30.0,
    }
    return ServerSettings(**(chosen | changes))


def fake_pool(folder: Path, num: int = 2, name: str = "agent", args: str = "", **habits: Any) -> PoolSpec:
    """A pool of fake servers with these habits (`fakes/fake_vllm.py`)."""
    extra = f"{args} --fake '{json.dumps(habits)}'"
    return PoolSpec(name, Vllm(), model=fake_model(folder), num=num, extra_args=extra)


def gone(pid: int) -> bool:
    """Whether no process of this pid lives (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def children_of(log: Path) -> list[int]:
    """Pids that a fake server with `children` has noted in its log."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("children ")]
    return [int(word) for line in lines for word in line.split()[1:]]


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Poll until the condition holds; its value. For processes: tests in an event loop use `until`."""
    over = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < over, "waited in vain"
        time.sleep(0.02)
    return value


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The same in an event loop."""
    import asyncio

    over = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < over, "waited in vain"
        await asyncio.sleep(0.02)
    return value


@contextmanager
def heard() -> Iterator[list[Event]]:
    """The events emitted meanwhile."""
    events: list[Event] = []
    stop = subscribe(events.append)
    try:
        yield events
    finally:
        stop()


def environment_for_runs() -> dict[str, str]:
    """For runner processes of tests: the checkout importable."""
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
