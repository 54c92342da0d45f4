"""How much effects differed over tasks in the comparisons so far: remembered in the cache directory, for `plan`."""

from __future__ import annotations

from typing import Any

from tau2_fleet.compare.comparison import Comparison
from tau2_fleet.errors import UserError
from tau2_fleet.paths import caches
from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.reading import read_object

_FILE = "effects.json"
_KEPT = 200


def remember(comparison: Comparison) -> None:
    """Keep the variance of effects that a comparison saw, in place of what the same sides gave before."""
    if comparison.effects is None:
        return
    new: dict[str, Any] = {
        "baseline": [str(source.path.resolve()) for source in comparison.baseline.sources],
        "candidate": [str(source.path.resolve()) for source in comparison.candidate.sources],
        "domains": sorted(comparison.domain_bounds),
        "tasks": len(comparison.tasks),
        "variance": comparison.effects,
    }
    sides = ("baseline", "candidate")
    kept = [one for one in _stored() if any(one.get(side) != new[side] for side in sides)]
    try:
        caches().mkdir(parents=True, exist_ok=True)
        write_json(caches() / _FILE, {"pairs": [*kept, new][-_KEPT:]})
    except (OSError, UserError):
        return  # a figure for later plans, which may do without


def remembered(domains: set[str]) -> tuple[float, int] | None:
    """The mean variance of earlier pairs on these domains, weighted by tasks, and their number; None without any."""
    found = [
        (float(one["variance"]), int(one["tasks"]))
        for one in _stored()
        if set(one.get("domains") or ()) & domains and isinstance(one.get("variance"), float)
    ]
    if not found:
        return None
    return sum(variance * tasks for variance, tasks in found) / sum(tasks for _, tasks in found), len(found)


def _stored() -> list[dict[str, Any]]:
    pairs = read_object(caches() / _FILE).get("pairs")
    return [one for one in pairs if isinstance(one, dict)] if isinstance(pairs, list) else []
