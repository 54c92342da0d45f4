"""What was spent, by the role that a model played and by model: kept of each record, summed for the summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
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

    def add(self, other: Spending) -> None:
        """Count another part of the same role and model in."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.cost_usd += other.cost_usd
        self.replies_with_markup += other.replies_with_markup


def spending_of(calls: Iterable[Mapping[str, Any]]) -> tuple[Spending, ...]:
    """The calls of a record by role and model; figures that a damaged record lacks count as none."""
    return total(_of_call(call) for call in calls)


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
        tree.setdefault(figures.pop("role"), {})[figures.pop("model")] = figures
    return tree


def _of_call(call: Mapping[str, Any]) -> Spending:
    usage = call.get("usage")
    if not isinstance(usage, dict):
        usage = {}
    return Spending(
        role=_text(call.get("role")),
        model=_text(call.get("model")),
        calls=1,
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cached_tokens=_count(usage.get("cached_tokens")),
        cost_usd=_amount(call.get("cost_usd")),
        replies_with_markup=1 if call.get("markup") else 0,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "unknown"


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _amount(value: Any) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
