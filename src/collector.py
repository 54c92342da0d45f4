"""Keeps Python's garbage collector out of the way: `main.py` makes it rare, `experiment.py` sets the heap aside."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (10_000, 20, 50)
"""New objects between two looks at the youngest; looks at these until the next at the older ones, and so on.
Python's own 700, 10, 10 suit programs that hold little."""


def collect_seldom() -> None:
    """From now on, in this process.

    A full collection stops everything: while domains are loaded it would come again and again and find nothing, and
    with a thousand conversations in flight it takes tenths of a second. Little of what a run lets go of is of the
    kind that only a collector finds.
    """
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def heap_set_aside() -> Iterator[None]:
    """While it lasts, collections pass over all that was there before: modules, domains, prepared tasks.

    What is garbage already stays until the end; to look for it first would cost a quarter of a second.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
