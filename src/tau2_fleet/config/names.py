"""Which keys and choices the configuration has, and which of them a misspelt one resembles."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cache
from typing import Any

from tau2_fleet.config.schema import Config
from tau2_fleet.paths import CONF_DIR

_HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir")
_NEAR = 0.62
"""Similarity (0 to 1, `difflib`) from which a name is worth suggesting; 0.6 still pairs unrelated short words."""
_CLOSE = 0.12
"""How far behind the best suggestion others may be."""


def choices(group: str) -> list[str]:
    """The options of a group of `conf/`; empty when there is no such group."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def groups() -> list[str]:
    """The groups of `conf/` but Hydra's own."""
    return sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra")


@cache
def key_types() -> dict[str, Any]:
    """Every key that can be set, with its type; `domain.<name>` for each domain there is."""
    return dict(_walk(Config, ""))


@cache
def optional_parts() -> list[str]:
    """The groups of keys that can be null as a whole, innermost first."""
    return sorted(_optional(Config, ""), key=len, reverse=True)


def _optional(kind: type[Any], prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        settings = without_none(hint)
        if dataclasses.is_dataclass(settings):
            if settings is not hint:
                yield prefix + field.name
            yield from _optional(typing.cast(type[Any], settings), f"{prefix}{field.name}.")


def _walk(kind: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key, hint = prefix + field.name, hints[field.name]
        settings = without_none(hint)
        if dataclasses.is_dataclass(settings):
            yield from _walk(typing.cast(type[Any], settings), key + ".")
        elif key == "domain":
            for name in choices("domain"):
                yield from _walk(typing.get_args(hint)[1], f"domain.{name}.")
        else:
            yield key, hint


def without_none(hint: Any) -> Any:
    """The type that an Optional holds; any other type as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def wanted(key: str) -> str | None:
    """What a key takes, in words; None for a key that does not exist."""
    hint = key_types().get(key)
    if hint is None:
        return None
    return _in_words(without_none(hint)) + (" or null" if without_none(hint) is not hint else "")


def _in_words(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    if typing.get_origin(hint) is list and issubclass(member := typing.get_args(hint)[0], Enum):
        return "a list such as [a,b] of " + ", ".join(choice.name for choice in member)
    words: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list[int]: "a list of whole numbers such as [0,1]",
        list[str]: "a list such as [a,b]",
    }
    return words.get(hint, "a mapping such as {name: value}")


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


def nearest_keys(key: str) -> list[str]:
    """The keys most like this one."""
    return nearest(key, [*key_types(), *groups(), *_HYDRA_KEYS])


def did_you_mean(names: list[str]) -> str:
    """` Did you mean a or b?`, or nothing."""
    return f" Did you mean {' or '.join(names)}?" if names else ""
