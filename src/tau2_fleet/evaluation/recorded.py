"""The judge's verdicts as a simulation's record holds them; `rescore` takes them instead of asking again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tau2_fleet.evaluation.reward import NLCheck


def recorded_verdicts(reward_info: Mapping[str, Any]) -> list[NLCheck] | None:
    """The judge's verdicts in a simulation's reward information; None when it holds none."""
    from tau2_fleet.evaluation.reward import NLCheck

    checks = reward_info.get("nl_assertions")
    if not isinstance(checks, list):
        return None
    try:
        return [
            NLCheck(str(check["nl_assertion"]), check["met"] is True, str(check.get("justification", "")))
            for check in checks
        ]
    except (KeyError, TypeError, AttributeError):
        return None
