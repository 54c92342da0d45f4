"""The context that a server gives a model, read from its list of models; the lean path and the fleet's probes ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_KEYS = ("max_model_len", "context_length", "context_window", "max_context_length")
"""vLLM's and SGLang's key, and those of gateways and hosted servers."""
_MOST_TOKENS = 10**9
_MOST_PARENTS = 8
"""A list that names more of them above each other goes in a circle, or means ill."""


def served_limit(entries: Sequence[Any], model: str) -> int | None:
    """Tokens that the model of this name takes, of the entries of `/v1/models`; None: the server does not say.

    An adapter has no limit of its own; its parent's holds, which vLLM names by id or by where it lies.
    """
    known = [entry for entry in entries if isinstance(entry, dict)]
    entry = next((entry for entry in known if entry.get("id") == model), None)
    for _ in range(_MOST_PARENTS):
        if entry is None:
            break
        limit = _limit(entry)
        if limit is not None:
            return limit
        parent = entry.get("parent")
        if parent is None and "max_model_len" not in entry:
            return None
        others = [other for other in known if other is not entry]
        parents = [other for key in ("id", "root") for other in others if parent and other.get(key) == parent]
        entry = parents[0] if parents else None
        if entry is None:  # a server has one base model; adapters have no limit
            limits = [limit for other in others if (limit := _limit(other)) is not None]
            return min(limits, default=None)
    return None


def _limit(entry: dict[str, Any]) -> int | None:
    for key in _KEYS:
        value = entry.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS:
            return value
    return None
