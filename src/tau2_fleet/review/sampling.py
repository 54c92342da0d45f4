"""Which simulations a model reviews where it is not to review all: a sample that has passes and failures of every
domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tau2_fleet.record.line import SimulationKey

Stratum = tuple[str, bool]
"""A domain, and whether it passed."""


def stratified(found: Iterable[tuple[SimulationKey, bool]], size: int, seed: int = 0) -> dict[SimulationKey, float]:
    """A sample with the number of simulations that each of it stands for.

    Every stratum (domain, outcome) has at least one, and beyond that as many as its share. The same simulations,
    size and seed give the same sample, and a larger size a larger one of the same.

    Args:
        found: simulations, and whether they passed.
        size: simulations wanted; with fewer than strata there are, each stratum still has one.
    """
    strata: dict[Stratum, list[SimulationKey]] = {}
    for key, passed in found:
        strata.setdefault((key.domain, passed), []).append(key)
    total = sum(map(len, strata.values()))
    wanted = _shares({stratum: len(keys) for stratum, keys in strata.items()}, min(size, total))
    chosen: dict[SimulationKey, float] = {}
    for stratum, keys in strata.items():
        first = sorted(keys, key=lambda key: _luck(key, seed))[: wanted[stratum]]
        chosen |= dict.fromkeys(first, len(keys) / len(first))
    return chosen


def _shares(sizes: dict[Stratum, int], size: int) -> dict[Stratum, int]:
    """How many of each stratum, by the largest remainders."""
    total = sum(sizes.values())
    exact = {stratum: size * count / total for stratum, count in sizes.items()}
    given = {stratum: min(sizes[stratum], max(1, int(part))) for stratum, part in exact.items()}
    by_remainder = sorted(exact, key=lambda stratum: exact[stratum] - int(exact[stratum]), reverse=True)
    while sum(given.values()) < size:
        for stratum in by_remainder:
            if given[stratum] < sizes[stratum] and sum(given.values()) < size:
                given[stratum] += 1
    return given


def _luck(key: SimulationKey, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {key.domain} {key.task_id} {key.trial}".encode("utf-8", "replace")).digest()
