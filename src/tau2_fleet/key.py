"""How a settings class says, beside each field, what that key of the configuration is: `key(default, help=...)`.

`tau2_fleet.config.table` gathers what the classes say; checks, `--help`, digests and resumes all draw from there, so a
new key is one field and nothing else. Standard library only, because `--help` and simulated servers import it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast, overload

T = TypeVar("T")


class Resume(StrEnum):
    """What another value of a key means for a run that is to go on."""

    fixed = "fixed"
    """Outcomes depend on it: it must be the same, and is part of the digest."""
    may_grow = "may_grow"
    """It says which simulations there are: some may be added, none taken away."""
    may_differ = "may_differ"
    """No outcome depends on it; holds for all beneath a group of keys, too."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; `above`: `low` itself is out."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether the number is one of these; infinities and NaN never are."""
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


COUNT = Range(1)
POSITIVE = Range(0, above=True)
FROM_ZERO = Range(0)
SHARE = Range(0, 1)


@dataclass(frozen=True, slots=True)
class Key:
    """What a settings class says of one of its fields beside type and default."""

    help: str
    """What it means, in a line; the default stands beside it in `--help`."""
    range: Range | None = None
    """Numbers that it can be; null is not a number."""
    among: tuple[str, ...] = ()
    """Texts that it can be; empty: any."""
    resume: Resume = Resume.fixed
    added: bool = False
    """True for a key that is younger than the first release: at its default it is left out of digests, so that runs
    from before it can go on."""
    path: bool = False
    """Whether it is, or can be, the path of a file: `~` is the home directory."""
    shown: str | None = None
    """The default in the words of `--help`, where the files of `conf/` give another than the class."""
    section: str | None = None
    """Under which heading of `--help` it stands; only for the outermost keys."""
    packed: bool = False
    """A group whose keys `--help` names without a line for each (`--help GROUP` has them)."""


@overload
def key(default: T, *, help: str, **more: Any) -> T: ...
@overload
def key(*, factory: Callable[[], T], help: str, **more: Any) -> T: ...
def key(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING, help: str, **more: Any) -> Any:
    """A field of a settings class that says of itself what `Key` has room for.

    Args:
        default: its value where nothing else is said.
        factory: makes the default, for groups of keys, lists and mappings.
        help: one line for people.
        more: the other fields of `Key`.
    """
    about = {"key": Key(help, **more)}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def key_of(field: dataclasses.Field[Any]) -> Key:
    """What a field's class says of it.

    Raises:
        KeyError: it was not made with `key`.
    """
    return cast(Key, field.metadata["key"])
