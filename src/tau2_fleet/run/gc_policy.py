"""Keeps Python's garbage collector out of the way: `cli.py` makes it rare, `experiment.py` takes it over."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_THRESHOLDS = (10_000, 20, 50)
"""New objects between two looks at the youngest; looks at these until the next at the older ones, and so on.
Python's own 700, 10, 10 suit programs that hold little."""

_SHARE = 1 / 400
"""Of the time, for collections while simulations run."""
_OBJECT_S = 1e-6
"""What a collection takes for each object that it has to look at."""
_LEAST_S = 10.0
_GROWTH = 3.0
"""Growth of the memory after which a collection comes before its time."""
_LOOK_S = 1.0


def collect_seldom() -> None:
    """From now on, in this process: while domains are loaded, full collections would come often and find nothing."""
    gc.set_threshold(*_THRESHOLDS)


@asynccontextmanager
async def collected_in_turn() -> AsyncIterator[None]:
    """While it lasts, collections come only seldom, and pass over all that was there before.

    Nearly all that simulations let go of is freed at once; only closed connections and the package's answers of tools
    wait for a collector. Python's own looks at what thousands of requests in flight hold again and again instead: it
    took a tenth of the time with 2,000 simulations in flight, tenths of a second at once.
    """
    import asyncio  # here and below: `--help` imports this module, and has no loop

    gc.freeze()
    gc.disable()
    collecting = asyncio.create_task(_collect_in_turn(), name="collector")
    try:
        yield
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        gc.enable()
        gc.unfreeze()


async def _collect_in_turn() -> None:
    """Collect when that has become a small share of the time since the last collection, or when memory grows."""
    import asyncio

    last, spent_s, most = time.monotonic(), 0.0, _GROWTH * _peak_memory()
    while True:
        await asyncio.sleep(_LOOK_S)
        begun = time.monotonic()
        expected_s = spent_s + _OBJECT_S * gc.get_count()[0]  # which counts on while collections are disabled
        if begun - last < max(_LEAST_S, expected_s / _SHARE) and _peak_memory() < most:
            continue
        gc.collect()
        last = time.monotonic()
        spent_s, most = last - begun, _GROWTH * _peak_memory()


def _peak_memory() -> int:
    """The most memory that the process has held, in the system's units: what is below it was needed before."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
