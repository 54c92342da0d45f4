"""Keeps Python's garbage collector out of the way: `cli.py` makes it rare, `execution.py` takes it over."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_THRESHOLDS = (10_000, 20, 50)
"""New objects between two looks at the youngest; looks at these until the next at the older ones, and so on.
Python's own 700, 10, 10 suit programs that hold little."""

_SHARE = 1 / 400
"""Of the time, for collections while simulations run."""
_BYTE_S = 1.7e-9
"""What a collection takes for each byte that simulations hold: 0.25 µs for an object of some 150 bytes. To count the
objects would take as long as the collection."""
_LEAST_S = 10.0
_PAUSE_S = 0.05
"""A collection of everything that would take longer waits until memory grows."""
_GROWTH = 3.0
"""Growth of the memory after which a collection comes before its time, and whatever it takes,"""
_PER_SIMULATION = 2**20
"""unless simulations in flight may hold it: so many bytes each, three times what one was seen to hold."""
_LOOK_S = 0.25
"""Between two looks at the memory, and at the objects that are new since the last."""


def collect_seldom() -> None:
    """From now on, in this process: while domains are loaded, full collections would come often and find nothing."""
    gc.set_threshold(*_THRESHOLDS)


@asynccontextmanager
async def collected_in_turn(in_flight: Callable[[], int] = lambda: 0) -> AsyncIterator[None]:
    """While it lasts, collections come only seldom, and pass over all that was there before.

    `in_flight` says how many simulations there are: what memory grows by with them is no garbage.

    Nearly all that simulations let go of is freed at once; only closed connections and the package's answers of tools
    wait for a collector. Python's own looks at what thousands of requests in flight hold again and again instead: it
    took a tenth of the time with 2,000 simulations in flight, tenths of a second at once.
    """
    import asyncio  # here and below: `--help` imports this module, and has no loop

    gc.freeze()
    gc.disable()
    collecting = asyncio.create_task(_collect_in_turn(in_flight), name="collector")
    try:
        yield
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        gc.enable()
        gc.unfreeze()


async def _collect_in_turn(in_flight: Callable[[], int]) -> None:
    """Collect when that has become a small share of the time since the last collection, or when memory grows.

    Thousands of simulations hold millions of objects, and to look at all of them takes seconds: then only new ones
    are looked at, which is where the package's answers of tools are. They are looked at often, however few they seem
    to be: what the collector counts is what was made less what was freed, and with simulations that begin and end a
    million new objects gathered under a count that hardly rose, and took a second at once.
    """
    import asyncio

    last = time.monotonic()
    base, most, flown = _memory(), _GROWTH * _memory(), in_flight()
    while True:
        await asyncio.sleep(_LOOK_S)
        begun = time.monotonic()
        flown = max(flown, in_flight())
        memory = _memory()
        expected_s = _BYTE_S * max(0, memory - base)
        due = expected_s <= _PAUSE_S and begun - last >= max(_LEAST_S, expected_s / _SHARE)
        if due or memory >= max(most, base + _PER_SIMULATION * flown):
            gc.collect()
            last = time.monotonic()
            most = _GROWTH * _memory()
        else:
            gc.collect(0)


def _memory() -> int:
    """What the process holds now, in bytes; where that cannot be known, the most that it has held."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
