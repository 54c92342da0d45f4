"""Parts that carry a version's name, which no module can have as it is: `tau2-1.0.1` is the module `tau2_1_0_1`."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TypeVar

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import names, resolve_target

T = TypeVar("T")


def named_part(name: str, key: str, folder: str, attribute: str, kind: type[T]) -> T:
    """What a module of a folder holds under `attribute`, or what an import path (`my_module.RULES`) leads to.

    Args:
        key: where the name stands in the configuration, for errors.

    Raises:
        UserError: there is no such part, or it is none of this kind.
    """
    module = re.sub(r"\W", "_", name)
    if module in names(folder):
        found = getattr(import_module(f"{folder}.{module}"), attribute, None)
    elif re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        found = resolve_target(name, key, folder)
    else:
        raise UserError(f"{key}={name}: there is none of this name")
    if not isinstance(found, kind):
        raise UserError(f"{key}={name}: {type(found).__name__} is no {kind.__name__}")
    return found
