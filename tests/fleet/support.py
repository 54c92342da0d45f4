"""Fleets of fake servers for the tests of this folder: real processes, ready in a moment."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device, ServerSettings
from tau2_fleet.fleet.watch import WatchSettings
from tau2_fleet.telemetry.events import Event, subscribe
from tests.waiting import CEILING_S

FAKE = Path(__file__).parent / "fakes" / "fake_vllm.py"
QUICK = WatchSettings(
    process_s=0.05,
    health_s=0.3,
    health_timeout_s=60.0,
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
        "ready_timeout_s": 120.0,
    }
    return ServerSettings(**(chosen | changes))


def fake_pool(folder: Path, num: int = 2, name: str = "agent", args: str = "", **habits: Any) -> PoolSpec:
    """A pool of fake servers with these habits (`fakes/fake_vllm.py`)."""
    extra = f"{args} --fake '{json.dumps(habits)}'"
    return PoolSpec(name, Vllm(), model=fake_model(folder), num=num, extra_args=extra)


def children_of(log: Path) -> list[int]:
    """Pids that a fake server with `children` has noted in its log."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("children ")]
    return [int(word) for line in lines for word in line.split()[1:]]


def hasten(watch: WatchSettings, **changes: float) -> None:
    """Short limits from here on: they would be missed by servers that only begin on a busy machine."""
    for name, value in changes.items():
        object.__setattr__(watch, name, value)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """In an event loop of its own; one that hangs fails."""

    async def limited() -> None:
        async with asyncio.timeout(5 * CEILING_S):
            await scenario()

    asyncio.run(limited())


def own_port(count: int = 1) -> int:
    """The first of some free ports in a row, which stay free: not of those that the system gives to whoever asks."""
    while True:
        first = random.SystemRandom().randrange(10_000, 20_000)
        if all(is_free("127.0.0.1", first + number) for number in range(count)):
            return first


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
