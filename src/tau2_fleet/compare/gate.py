"""The gate: whether a candidate is not worse than a baseline by more than a margin. `command.py` asks, for a CI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tau2_fleet.benchmark.task_sets import meant_name
from tau2_fleet.compare.comparison import OVERALL, Comparison, infrastructure_bounds
from tau2_fleet.compare.difference_rows import DifferenceRow
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.paired import Interval
from tau2_fleet.regular import read_given

_EXAMPLE = {"--detect": "3pp", "--effects-sd": "5pp"}
_POINTS = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*pp\s*")
_PARTS = ("overall", "domains", "baseline")
"""Of a policy file."""


class GateVerdict(StrEnum):
    """What a gate says."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"

    @property
    def exit_status(self) -> ExitStatus:
        return _STATUS[self]


_STATUS = {
    GateVerdict.PASSED: ExitStatus.FINISHED,
    GateVerdict.FAILED: ExitStatus.NEGATIVE,
    GateVerdict.UNDECIDED: ExitStatus.PARTIAL,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Margins that a candidate is held to, and perhaps the baseline that it is held against."""

    margins: dict[str, float]
    """By `overall` or a domain, in shares: -0.03 lets three percentage points be lost."""
    baseline: str | None = None
    """A path or a W&B artifact (`wandb:entity/project/name:version`)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says of the whole, or of one domain."""

    name: str
    margin: float
    difference: float
    bounds: Interval | None
    """Lower and upper one-sided 95% bounds."""
    verdict: GateVerdict
    reason: str

    @property
    def line(self) -> str:
        """For people and logs, in one line."""
        bounds = (
            ""
            if self.bounds is None
            else f", one-sided 95% bounds {points(self.bounds.low)} and {points(self.bounds.high)}"
        )
        return (
            f"{self.verdict.upper()} {self.name}: {points(self.difference)}{bounds}, margin {points(self.margin)}: "
            f"{self.reason}"
        )


def points(share: float) -> str:
    """`+3.2 pp`."""
    return f"{round(100 * share, 1) + 0.0:+.1f} pp"


def read_points(text: str, what: str) -> float:
    """A number of percentage points, `-3pp`, as a share.

    Raises:
        UserError: it is none, or not between -100 and 100.
    """
    found = _POINTS.fullmatch(text)
    if found is None or not -100 <= float(found[1]) <= 100:
        raise UserError(
            f"{what}={text}: expected percentage points from -100 to 100, such as {what}={_EXAMPLE.get(what, '-3pp')}"
        )
    return float(found[1]) / 100


def read_policy(path: Path) -> Policy:
    """A policy file: `overall: -3pp`, `domains: {retail: -5pp}`, `baseline: PATH`, each of them if wanted.

    Raises:
        UserError: it cannot be read, names something else, or holds no margin.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(read_given(path).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: expected overall, domains or baseline")
    unknown = [str(name) for name in found if name not in _PARTS]
    domains = found.get("domains") or {}
    if unknown or not isinstance(domains, Mapping):
        meant = meant_name(unknown[0], _PARTS) if unknown else ""
        raise UserError(
            f"{path}: {unknown[0] if unknown else 'domains'}{meant}: expected overall: -3pp, domains: {{retail: -5pp}}"
        )
    margins = {OVERALL: found["overall"]} if "overall" in found else {}
    margins |= {str(name): margin for name, margin in domains.items()}
    if not margins:
        raise UserError(f"{path}: it sets no margin")
    baseline = found.get("baseline")
    return Policy(
        {name: read_points(str(margin), f"{path}: {name}") for name, margin in margins.items()},
        None if baseline is None else str(baseline),
    )


def decide(comparison: Comparison, margins: Mapping[str, float]) -> list[Decision]:
    """One decision for each margin. The whole passes only if all do, so none is adjusted (Berger 1982, Technometrics
    24:295-300).

    Raises:
        UserError: a margin is for a domain that was not compared.
    """
    rows = {OVERALL: comparison.overall, **{row.name: row for row in comparison.domains}}
    if not comparison.domains:  # a single domain, which is the whole
        rows |= dict.fromkeys(comparison.domain_bounds, comparison.overall)
    return [_decide(comparison, name, margin, rows.get(name)) for name, margin in margins.items()]


def _decide(comparison: Comparison, name: str, margin: float, row: DifferenceRow | None) -> Decision:
    if row is None:
        known = ", ".join(comparison.domain_bounds)
        meant = meant_name(name, comparison.domain_bounds)
        raise UserError(f"the policy has a margin for {name}, which was not compared{meant}; domains: {known}")
    bounds = comparison.one_sided if name == OVERALL else comparison.domain_bounds[name]
    if bounds is None:
        return Decision(name, margin, row.difference, None, GateVerdict.UNDECIDED, "one task says nothing of others")
    verdict, reason = GateVerdict.UNDECIDED, "the interval straddles the margin"
    if bounds.low > margin:
        verdict, reason = GateVerdict.PASSED, "the lower bound is above the margin"
    elif bounds.high < margin:
        verdict, reason = GateVerdict.FAILED, "the upper bound is below the margin"
    hidden = _bounds(comparison, name)
    if verdict is not GateVerdict.UNDECIDED and hidden.low < margin < hidden.high:
        reason = (
            f"infrastructure failures could hide anything from {points(hidden.low)} to {points(hidden.high)}, "
            "which straddles the margin"
        )
        verdict = GateVerdict.UNDECIDED
    return Decision(name, margin, row.difference, bounds, verdict, reason)


def _bounds(comparison: Comparison, name: str) -> Interval:
    if name == OVERALL or not comparison.domains:
        return comparison.infrastructure.bounds
    tasks = [task for task in comparison.tasks if task.partition("/")[0] == name]
    return infrastructure_bounds(comparison.baseline, comparison.candidate, tasks)


def whole(decisions: Sequence[Decision]) -> GateVerdict:
    """Failed if any failed, undecided if any is, else passed."""
    verdicts = {decision.verdict for decision in decisions}
    return next(one for one in (GateVerdict.FAILED, GateVerdict.UNDECIDED, GateVerdict.PASSED) if one in verdicts)
