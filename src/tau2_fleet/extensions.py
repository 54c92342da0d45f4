"""Parts that users can add: found by the name of a file in a folder of this package, or anywhere by an import path.

A configuration says `sticky` (the class `Sticky` in that folder's `sticky.py`), `my_rules.RoundRobin`, or
`{_target_: my_rules.RoundRobin, option: 1}`. Server kinds, routing rules, trackers and scaffolds are found this way.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Protocol, TypeVar

from tau2_fleet.errors import UserError

T = TypeVar("T")
TARGET = "_target_"
Choice = str | Mapping[str, Any]
"""A name, an import path, or a mapping of `_target_` (either of them) and options for the part."""


def names(folder: str) -> list[str]:
    """The names found in a folder, given as a package (`tau2_fleet.fleet.kinds`)."""
    path = import_module(folder).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def target_of(choice: Choice) -> tuple[str, dict[str, Any]]:
    """The name or import path of a choice, and its options; the first is empty where there is none.

    What is no choice (a number or a list, typed in its place) is taken for a name, for which `resolve_target` finds
    nothing.
    """
    if not isinstance(choice, Mapping):
        return "" if choice is None else str(choice), {}
    options = {str(name): value for name, value in choice.items()}
    return str(options.pop(TARGET, "") or ""), options


def resolve_target(choice: Choice, key: str, folder: str) -> Any:
    """The class or function that a choice stands for.

    Args:
        choice: what the configuration says.
        key: where it stands there, for errors.
        folder: the package in which plain names are found.

    Raises:
        UserError: there is no such part.
    """
    target, _ = target_of(choice)
    module, _, attribute = target.rpartition(".")
    if not module:
        known = names(folder)
        if target not in known:
            raise UserError(
                f"{key}={target or 'null'}: there is none of this name, only {', '.join(known)}; "
                f"one of your own is given by its import path: '{key}={{{TARGET}: my_module.MyClass}}'"
            )
        module, attribute = f"{folder}.{target}", "".join(word.capitalize() for word in target.split("_"))
    try:
        return getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module of somebody else's does while it is imported
        raise UserError(f"{key}: {target} cannot be had: {type(error).__name__}: {_one_line(error)}") from error


def make(choice: Choice, key: str, folder: str, wanted: type[T], **context: Any) -> T:
    """The part itself, made of its options.

    Args:
        choice, key, folder: see `resolve_target`.
        wanted: a protocol or class; the part must have all its public names.
        context: what this program hands to every part of this sort, beside its options.

    Raises:
        UserError: there is no such part, it failed while it was made, or it is not what is wanted here.
    """
    found = resolve_target(choice, key, folder)
    target, options = target_of(choice)
    if not callable(found):
        raise UserError(f"{key}: {target} is a {type(found).__name__}, not a class or function to call")
    try:
        part = found(**context, **options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{key}: {target} failed while it was made: {type(error).__name__}: {_one_line(error)}"
            + (misspelt_option(found, options) if isinstance(error, TypeError) else "")
        ) from error
    if missing := [name for name in _public_names(wanted) if not hasattr(part, name)]:
        made = type(part).__name__
        raise UserError(f"{key}: {target} made a {made}, which has no {', '.join(missing)}: no {wanted.__name__}")
    return part  # type: ignore[no-any-return]


def misspelt_option(code: Any, options: Iterable[str]) -> str:
    """`; did you mean size?` where a class or function does not take one of these options, and one that is alike."""
    try:
        taken = list(inspect.signature(code).parameters)
    except (TypeError, ValueError):
        return ""
    near = [get_close_matches(name, taken, n=1) for name in options if name not in taken]
    return next((f"; did you mean {found[0]}?" for found in near if found), "")


def _public_names(wanted: type) -> list[str]:
    bases = [base for base in wanted.__mro__ if base not in (object, Protocol) and base.__module__ != "typing"]
    found = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    return sorted(name for name in found if not name.startswith("_"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
