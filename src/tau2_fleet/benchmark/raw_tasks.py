"""Tasks as a file has them, beside what the package's `Task` keeps of them: fields of other versions are not lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tau2_fleet.benchmark.scoring.rules import ScoringRules


def with_unknown_fields(known: Any, raw: Any) -> Any:
    """What was made of a task, dumped, with the fields of its file that are not in it, at any depth.

    Times that the file does not have are when it was read, and are left out.
    """
    if isinstance(known, dict) and isinstance(raw, dict):
        merged = {
            name: with_unknown_fields(value, raw[name]) if name in raw else value
            for name, value in known.items()
            if name in raw or name != "timestamp"
        }
        return merged | {name: value for name, value in raw.items() if name not in known}
    if isinstance(known, list) and isinstance(raw, list) and len(known) == len(raw):
        return [with_unknown_fields(*pair) for pair in zip(known, raw, strict=True)]
    return known


def unknown_criteria(raw: Mapping[str, Any], rules: ScoringRules) -> str:
    """What a task is to be judged by and nothing here can check, for people; empty when there is nothing of the kind.

    A criterion without anything in it asks for nothing.
    """
    from tau2_fleet.benchmark.package import EvaluationCriteria

    criteria = raw.get("evaluation_criteria")
    if not isinstance(criteria, dict):
        return ""
    unknown = [name for name, value in criteria.items() if name not in EvaluationCriteria.model_fields and value]
    basis = criteria.get("reward_basis")
    kinds = [str(kind) for kind in basis] if isinstance(basis, list) else []
    unknown += [kind for kind in kinds if kind not in rules.criteria]
    return ", ".join(unknown)
