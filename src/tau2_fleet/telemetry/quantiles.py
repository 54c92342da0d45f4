"""Quantiles of measured values; the tracker and `tau2-fleet analyze` use the same ones."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated linearly between neighbours.

    Definition 7 of Hyndman and Fan (1996), numpy's default.

    Args:
        ordered: values in ascending order, at least one.
        share: 0 to 1.
    """
    place = (len(ordered) - 1) * share
    below = int(place)
    if below + 1 >= len(ordered):
        return ordered[-1]
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below)
