"""Which tasks `task_ids` means in which domain."""

from __future__ import annotations

from collections.abc import Iterable

from tau2_fleet.config.schema import Config
from tau2_fleet.config.sources import SHIPPED


def split_task_id(text: str, selected: Iterable[str]) -> tuple[str | None, str]:
    """Domain and id of an entry of `task_ids`; `5` has no domain, `retail/5` has.

    What stands before the slash is a domain if it is one of the `selected` or of the program's own.
    """
    domain, slash, task = text.partition("/")
    known = slash and (domain in selected or domain in SHIPPED.choices("domain"))
    return (domain, task) if known else (None, text)


def task_ids_of(config: Config, domain: str) -> list[str] | None:
    """The ids asked for in one domain, each once; None: all its tasks, empty: none of them."""
    if config.task_ids is None:
        return None
    pairs = [split_task_id(text, config.domain) for text in config.task_ids]
    return list(dict.fromkeys(task for named, task in pairs if named in (None, domain)))
