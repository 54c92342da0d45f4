"""The gc_policy while simulations run: out of the way, but garbage is not kept."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from tau2_fleet.run import gc_policy
from tests.waiting import until


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def _old_garbage() -> weakref.ref[_Cycle]:
    """Garbage that was in use when new objects were looked at, so that only a whole collection finds it."""
    cycle = _Cycle()
    gc.collect(0)
    return weakref.ref(cycle)


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
            await until(lambda: garbage() is None)

    asyncio.run(run())
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_growing_memory_brings_a_collection_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = 100.0
    monkeypatch.setattr(gc_policy, "_LOOK_S", 0.01)
    monkeypatch.setattr(gc_policy, "_memory", lambda: peak)

    async def run() -> None:
        nonlocal peak
        async with gc_policy.collected_in_turn():
            garbage = _old_garbage()
            await asyncio.sleep(0.1)
            assert garbage() is not None
            peak = 301.0
            await until(lambda: garbage() is None)

    asyncio.run(run())


def test_memory_that_simulations_in_flight_may_hold_brings_none(monkeypatch: pytest.MonkeyPatch) -> None:
    held, looks = 100, 0

    def memory() -> int:
        nonlocal looks
        looks += 1
        return held

    monkeypatch.setattr(gc_policy, "_LOOK_S", 0.005)
    monkeypatch.setattr(gc_policy, "_PER_SIMULATION", 10)
    monkeypatch.setattr(gc_policy, "_memory", memory)

    async def run() -> None:
        nonlocal held
        async with gc_policy.collected_in_turn(lambda: 200):
            garbage = _old_garbage()
            await until(lambda: looks >= 3)
            held, seen = 2000, looks
            await until(lambda: looks >= seen + 4)
            assert garbage() is not None
            held = 2100
            await until(lambda: garbage() is None)

    asyncio.run(run())


def test_of_many_objects_only_the_new_ones_are_looked_at_however_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gc_policy, "_LOOK_S", 0.01)
    monkeypatch.setattr(gc_policy, "_LEAST_S", 0.0)
    monkeypatch.setattr(gc_policy, "_SHARE", 1e9)
    monkeypatch.setattr(gc_policy, "_PAUSE_S", -1.0)
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            generations.append(info["generation"])

    async def run() -> None:
        async with gc_policy.collected_in_turn():
            held = [[number] for number in range(50_000)]
            garbage = weakref.ref(_Cycle())
            gc.callbacks.append(note)
            try:
                await until(lambda: garbage() is None)
            finally:
                gc.callbacks.remove(note)
            assert set(generations) == {0}
            assert held

    asyncio.run(run())


def test_python_s_own_ways_come_back_after_a_failure() -> None:
    async def run() -> None:
        async with gc_policy.collected_in_turn():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(run())
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
