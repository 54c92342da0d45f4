"""Waiting for what must come, with a ceiling that a busy machine does not reach; for tests of every room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

CEILING_S = 180.0
"""The longest wait for anything: only what hangs takes so long."""


def wait_for(
    condition: Callable[[], Any], seconds: float = CEILING_S, left: Callable[[], object] = lambda: "waited in vain"
) -> Any:
    """Poll until the condition holds; its value. For processes: tests in an event loop use `until`.

    Raises:
        AssertionError: it did not within so many seconds; says what is `left`.
    """
    for pause_s in _pauses(seconds):
        if value := condition():
            return value
        time.sleep(pause_s)
    raise AssertionError(left())


async def until(
    condition: Callable[[], Any], seconds: float = CEILING_S, left: Callable[[], object] = lambda: "waited in vain"
) -> Any:
    """The same in an event loop."""
    for pause_s in _pauses(seconds):
        if value := condition():
            return value
        await asyncio.sleep(pause_s)
    raise AssertionError(left())


def _pauses(seconds: float) -> Iterator[float]:
    """Short ones first, for what is there in a moment; the last one ends after the ceiling."""
    over, pause_s = time.monotonic() + seconds, 0.001
    while time.monotonic() < over:
        yield pause_s
        pause_s = min(0.02, 2 * pause_s)
    yield 0.0


def gone(pid: int) -> bool:
    """Whether no process of this pid lives (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def all_gone(pids: Iterable[int], seconds: float = CEILING_S) -> None:
    """Wait for the end of these processes: one that was killed takes its time to go."""
    pids = list(pids)
    wait_for(lambda: all(map(gone, pids)), seconds, lambda: f"still there: {[pid for pid in pids if not gone(pid)]}")


class Clock:
    """Stands for the module `time` in a module of the program: `forward` makes its limits pass without a wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self._ahead_s = 0.0
        monkeypatch.setattr(f"{module}.time", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def forward(self, seconds: float) -> None:
        self._ahead_s += seconds
