"""How long a simulated answer takes: quantiles measured on a real fleet, drawn per session and turn.

Profiles are YAML files in `data/latency/`: under `roles`, seconds by quantile for each role.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.paths import DATA_DIR

PROFILES_DIR = DATA_DIR / "latency"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Quantiles of a duration; between them, and beyond the outer ones, its logarithm is linear in the quantile."""

    quantiles: tuple[float, ...]
    """Rising, in [0, 1]; two at least."""
    seconds: tuple[float, ...]
    """Of the same length, above zero."""

    def at(self, quantile: float) -> float:
        """Seconds at a quantile in [0, 1]."""
        right = min(max(bisect_right(self.quantiles, quantile), 1), len(self.quantiles) - 1)
        low, high = self.quantiles[right - 1], self.quantiles[right]
        start, end = log(self.seconds[right - 1]), log(self.seconds[right])
        return exp(start + (end - start) * (quantile - low) / (high - low))


@dataclass(frozen=True, slots=True)
class LatencyProfile:
    """Distributions by role; `expert-2` falls back to `expert`, every role at last to `agent`."""

    roles: Mapping[str, Distribution]

    def seconds(self, role: str, quantile: float) -> float:
        found = self.roles.get(role) or self.roles.get(role.partition("-")[0]) or self.roles["agent"]
        return found.at(quantile)


def load_profile(name: str) -> LatencyProfile:
    """The profile of a name in `data/latency/` (without `.yaml`), or of a path.

    Raises:
        UserError: there is no such profile, or it is not one.
    """
    import yaml  # only servers with a latency profile pay for this import

    path = PROFILES_DIR / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(found.stem for found in PROFILES_DIR.glob("*.yaml")))
        raise UserError(f"latency profile {name!r}: no such file, nor in data/latency/ (there: {known})") from None
    except yaml.YAMLError as error:
        raise UserError(f"latency profile {path}: not YAML: {error}") from None
    try:
        roles = {str(role): _distribution(quantiles) for role, quantiles in content["roles"].items()}
        if "agent" not in roles:
            raise ValueError("the role `agent` is missing")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"latency profile {path}: {error} (expected roles: agent: {{0.5: 4.0, 0.9: 9.7}})") from None
    return LatencyProfile(roles)


def _distribution(raw: Mapping[float, float]) -> Distribution:
    points = sorted((float(quantile), float(seconds)) for quantile, seconds in raw.items())
    quantiles, seconds = tuple(point[0] for point in points), tuple(point[1] for point in points)
    if len(points) < 2 or quantiles[0] < 0 or quantiles[-1] > 1 or min(seconds) <= 0:
        raise ValueError("a role needs two quantiles in [0, 1] at least, with seconds above 0")
    if any(later < earlier for earlier, later in pairwise(seconds)):
        raise ValueError("seconds must not fall as the quantile rises")
    return Distribution(quantiles, seconds)
