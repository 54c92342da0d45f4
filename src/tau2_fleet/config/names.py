"""Which keys and choices of the configuration a misspelt one resembles."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tau2_fleet.config import table
from tau2_fleet.config.sources import SHIPPED, Sources

_HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.searchpath")
_NEAR = 0.62
"""Similarity (0 to 1, `difflib`) from which a name is worth suggesting; 0.6 still pairs unrelated short words."""
_CLOSE = 0.12
"""How far behind the best suggestion others may be."""


def nearest(name: str, among: Iterable[str], count: int = 3) -> list[str]:
    """The names most like this one, best first; empty when none is alike."""
    scored = sorted(((_likeness(name, other), other) for other in among), key=lambda pair: (-pair[0], pair[1]))
    best = scored[0][0] if scored else 0.0
    return [other for likeness, other in scored if likeness >= max(_NEAR, best - _CLOSE)][:count]


def _likeness(name: str, other: str) -> float:
    name, other = name.lower(), other.lower()
    whole = difflib.SequenceMatcher(None, name, other).ratio()
    # `temperature` means `agent.temperature`, `server.number` means `server.num`.
    last = difflib.SequenceMatcher(None, name.rpartition(".")[2], other.rpartition(".")[2]).ratio()
    same_parent = name.rpartition(".")[0] == other.rpartition(".")[0]
    return max(whole, last * (1.0 if same_parent else 0.9 if "." not in name else 0.8))


def nearest_keys(key: str, sources: Sources = SHIPPED) -> list[str]:
    """The keys and groups most like this one."""
    return nearest(key, [*table.key_names(sources.choices("domain")), *sources.groups(), *_HYDRA_KEYS])


def unknown_key(key: str, sources: Sources = SHIPPED) -> str:
    """What to say of a key that is none."""
    if key == "llm":
        return "llm: say whose model it is: llm@user_llm=NAME, llm@judge=NAME or llm@experts.expert_1.llm=NAME"
    return f"{key}: there is no such key.{did_you_mean(nearest_keys(key, sources))} All keys: --help"


def did_you_mean(names: list[str]) -> str:
    """` Did you mean a or b?`, or nothing."""
    return f" Did you mean {' or '.join(names)}?" if names else ""
