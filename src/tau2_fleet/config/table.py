"""Every key of the configuration by its dotted name, gathered from what the settings classes say beside their fields.

Whoever checks, explains, compares or lists keys asks here; nothing else knows a key by name unless it has a rule of
its own.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from tau2_fleet.config.schema import Config
from tau2_fleet.key import Key, Resume, key_of

ANY_DOMAIN = "NAME"
"""Stands for a domain's name in the table: `domain.NAME.tasks`."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key, or a group of keys."""

    name: str
    hint: Any
    """Its type, as the class spells it."""
    default: Any
    key: Key
    resume: Resume
    """What holds for it, the groups around it considered."""
    members: type[Any] | None = None
    """The settings class of a group."""

    @property
    def optional(self) -> bool:
        """Whether it can be null."""
        return _without_none(self.hint) is not self.hint

    def wanted(self) -> str:
        """What it takes, in words."""
        if self.key.range is not None and self.key.among:
            return " or ".join(["a whole number", *self.key.among])
        return _in_words(_without_none(self.hint)) + (" or null" if self.optional else "")

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type, in words; None when nothing is."""
        if self.key.range is not None and self.key.among:  # a number, or a word in its place
            whole = isinstance(value, int) and not isinstance(value, bool)
            fits = value in self.key.among or (whole and self.key.range.holds(value))
            return None if fits else f"must be {' or '.join(self.key.among)}, or a whole number, {self.key.range}"
        if value is None:
            return None
        if self.key.range is not None and not self.key.range.holds(value):
            return f"must be {self.key.range}"
        if self.key.among and value not in self.key.among:
            return f"must be {' or '.join(self.key.among)}"
        return None


@cache
def table() -> Mapping[str, KeyEntry]:
    """All keys, groups too, in the order of their classes; those of a domain once, as `domain.NAME.…`."""
    return {entry.name: entry for entry in entries_of(Config, "", Resume.fixed)}


def entries_of(kind: type[Any], prefix: str, around: Resume) -> Iterator[KeyEntry]:
    """The keys of one settings class and of the groups in it; `around`: what holds for the group that they are in."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint, key = prefix + field.name, hints[field.name], key_of(field)
        resume = Resume.may_differ if around is Resume.may_differ else key.resume
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        plain = _without_none(hint)
        settings = typing.cast(type[Any], plain) if dataclasses.is_dataclass(plain) else None
        yield KeyEntry(name, hint, default, key, resume, settings)
        if settings is not None:
            yield from entries_of(settings, f"{name}.", resume)
        elif name == "domain":
            yield from entries_of(typing.get_args(hint)[1], f"{name}.{ANY_DOMAIN}.", Resume.fixed)


def find(name: str) -> KeyEntry | None:
    """The key or group of this name; that of any domain for `domain.retail.tasks`."""
    first, *rest = name.split(".")
    if first == "domain" and rest:
        name = ".".join([first, ANY_DOMAIN, *rest[1:]])
    return table().get(name)


def key_names(domains: typing.Iterable[str] = (ANY_DOMAIN,)) -> list[str]:
    """The names of all keys that hold a value; `domain.…` for each of these domains."""
    found: list[str] = []
    for entry in table().values():
        if entry.members is not None or entry.name == "domain":
            continue
        each = f"domain.{ANY_DOMAIN}."
        if entry.name.startswith(each):
            found += [f"domain.{domain}.{entry.name.removeprefix(each)}" for domain in domains]
        else:
            found.append(entry.name)
    return found


def optional_groups() -> list[str]:
    """The groups of keys that can be null as a whole, innermost first."""
    found = [entry.name for entry in table().values() if entry.members is not None and entry.optional]
    return sorted(found, key=len, reverse=True)


def impossible(values: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of these keys whose value cannot be."""
    for name, value in values.items():
        entry = find(name)
        problem = None if entry is None else entry.problem(value)
        if problem is not None:
            yield f"{name}={value}: {problem}"


def _without_none(hint: Any) -> Any:
    """The type that an Optional holds; any other type as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


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
        Any: "a name, or an import path with options such as {_target_: my_module.MyClass}",
    }
    return words.get(hint, "a mapping such as {name: value}")
