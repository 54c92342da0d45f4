"""What a reference (`${oc.env:X}`, `${other.key}`) put in the place of a list, mapping or group; `validation` asks.

OmegaConf checks what references give for plain values alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST = 300
_KINDS: dict[type, str] = {list: "a list such as [a,b]", dict: "a mapping such as {name: value}"}


def misplaced(value: Any, path: str = "") -> Iterator[str]:
    """What stands in the place of something else in a configuration object, in words for people."""
    for name, kinds in _kinds(type(value)).items():
        part = getattr(value, name)
        if not isinstance(part, kinds.own):
            yield _told(f"{path}{name}", part, kinds.own)
        elif isinstance(part, dict):
            for key, member in part.items():
                if kinds.members is not None and not isinstance(member, kinds.members):
                    yield _told(f"{path}{name}.{key}", member, (kinds.members,))
                elif dataclasses.is_dataclass(member):
                    yield from misplaced(member, f"{path}{name}.{key}.")
        elif dataclasses.is_dataclass(part):
            yield from misplaced(part, f"{path}{name}.")


def _told(key: str, value: object, kinds: Sequence[type]) -> str:
    wanted = next((_KINDS[kind] for kind in kinds if kind in _KINDS), "a group of keys")
    return f"{key}={value}: {key} takes {wanted}."[:_LONGEST]


@dataclass(frozen=True, slots=True)
class _Kinds:
    own: tuple[type, ...]
    """The classes that a field's value may have."""
    members: type | None
    """The class of a mapping's values, where they are groups of keys."""


def _kinds(schema: type) -> Mapping[str, _Kinds]:
    """The fields that hold more than a plain value."""
    hints = typing.get_type_hints(schema)
    found = {}
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        of_several = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
        own = tuple(typing.get_origin(one) or one for one in of_several)
        if any(kind in _KINDS or dataclasses.is_dataclass(kind) for kind in own) and Any not in own:
            groups = [part for one in of_several for part in typing.get_args(one) if dataclasses.is_dataclass(part)]
            members = groups[0] if dict in own and groups else None
            found[field.name] = _Kinds(own, members if isinstance(members, type) else None)
    return found
