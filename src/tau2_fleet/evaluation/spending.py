"""What was spent, by the role that a model played and by model: kept of each record, summed for the summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Spending:
    """The calls of one model in one role."""

    role: str
    """`agent`, `user`, `judge` or `expert-N`."""
    model: str
    calls: int = 0
    """Failed ones too: they can cost as well."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input that the provider had in its cache."""
    cost_usd: float = 0.0
    replies_with_markup: int = 0
    """Replies with tool-call markup left in their text: the sign of a server's parser that does not fit."""
    returned: dict[str, int] = field(default_factory=dict)
    """Replies by the model's id as the provider gave it with each."""

    def add(self, other: Spending) -> None:
        """Count another part of the same role and model in."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.cost_usd += other.cost_usd
        self.replies_with_markup += other.replies_with_markup
        for name, replies in other.returned.items():
            self.returned[name] = self.returned.get(name, 0) + replies


def spending_of(calls: Iterable[Mapping[str, Any]]) -> tuple[Spending, ...]:
    """The calls of a record by role and model; figures that a damaged record lacks count as none."""
    sums: dict[tuple[str, str], Spending] = {}
    for call in calls:
        key = _text(call.get("role")), _text(call.get("model"))
        part = sums.get(key)
        if part is None:
            part = sums[key] = Spending(*key)
        usage = call.get("usage")
        if isinstance(usage, dict):
            part.input_tokens += _count(usage.get("input_tokens"))
            part.output_tokens += _count(usage.get("output_tokens"))
            part.cached_tokens += _count(usage.get("cached_tokens"))
        part.calls += 1
        part.cost_usd += _amount(call.get("cost_usd"))
        if call.get("markup"):
            part.replies_with_markup += 1
        if isinstance(name := call.get("returned_model"), str):
            part.returned[name] = part.returned.get(name, 0) + 1
    return tuple(sums[key] for key in sorted(sums))


def total(parts: Iterable[Spending]) -> tuple[Spending, ...]:
    """One part for each role and model, in their order."""
    sums: dict[tuple[str, str], Spending] = {}
    for part in parts:
        key = part.role, part.model
        if key not in sums:
            sums[key] = Spending(*key)
        sums[key].add(part)
    return tuple(sums[key] for key in sorted(sums))


def as_tree(parts: Iterable[Spending]) -> dict[str, dict[str, dict[str, Any]]]:
    """Role, then model, then its figures; ready for JSON."""
    tree: dict[str, dict[str, dict[str, Any]]] = {}
    for part in parts:
        figures = asdict(part)
        del figures["returned"]
        tree.setdefault(figures.pop("role"), {})[figures.pop("model")] = figures
    return tree


def returned_models(parts: Iterable[Spending]) -> dict[str, dict[str, dict[str, int]]]:
    """Role, then model as it was asked for, then the ids that came with the replies and how often; ready for JSON."""
    tree: dict[str, dict[str, dict[str, int]]] = {}
    for part in parts:
        if part.returned:
            tree.setdefault(part.role, {})[part.model] = dict(sorted(part.returned.items()))
    return tree


def moved_models(parts: Iterable[Spending]) -> dict[str, dict[str, int]]:
    """Models that answered under more than one id, in whatever roles: the name moved to another model on the way."""
    ids: dict[str, Counter[str]] = {}
    for part in parts:
        ids.setdefault(part.model, Counter()).update(part.returned)
    return {model: dict(sorted(found.items())) for model, found in sorted(ids.items()) if len(found) > 1}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "unknown"


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _amount(value: Any) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
