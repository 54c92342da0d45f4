"""The gc_policy while simulations run: out of the way, but garbage is not kept."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from tau2_fleet.run import gc_policy


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_only_a_collector_finds_is_collected_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_policy, "_LOOK_S", 0.01)
    monkeypatch.setattr(gc_policy, "_LEAST_S", 0.05)
    monkeypatch.setattr(gc_policy, "_SHARE", 1)

    async def run() -> None:
        async with gc_policy.collected_in_turn():
            assert not gc.isenabled()
            assert gc.get_freeze_count()
            garbage = weakref.ref(_Cycle())
            assert garbage() is not None
            async with asyncio.timeout(10):
                while garbage() is not None:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_growing_memory_brings_a_collection_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = 100.0
    monkeypatch.setattr(gc_policy, "_LOOK_S", 0.01)
    monkeypatch.setattr(gc_policy, "_peak_memory", lambda: peak)

    async def run() -> None:
        nonlocal peak
        async with gc_policy.collected_in_turn():
            garbage = weakref.ref(_Cycle())
            await asyncio.sleep(0.1)
            assert garbage() is not None
            peak = 301.0
            async with asyncio.timeout(10):
                while garbage() is not None:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_python_s_own_ways_come_back_after_a_failure() -> None:
    async def run() -> None:
        async with gc_policy.collected_in_turn():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(run())
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
