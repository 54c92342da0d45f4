"""Waiting for what must come, with a ceiling that a busy machine does not reach; for tests of every room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CEILING_S = 60.0


def wait_for(condition: Callable[[], Any], seconds: float = CEILING_S) -> Any:
    """Poll until the condition holds; its value. For processes: tests in an event loop use `until`."""
    over = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < over, "waited in vain"
        time.sleep(0.02)
    return value


async def until(condition: Callable[[], Any], seconds: float = CEILING_S) -> Any:
    """The same in an event loop."""
    over = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < over, "waited in vain"
        await asyncio.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    """Whether no process of this pid lives (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"
