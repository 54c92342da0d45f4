"""Which tasks `task_ids` means in which domain."""

from __future__ import annotations

from tau2_fleet.config.names import choices
from tau2_fleet.config.schema import Config


def split_task_id(text: str) -> tuple[str | None, str]:
    """Domain and id of an entry of `task_ids`; `5` has no domain, `retail/5` has."""
    domain, slash, task = text.partition("/")
    return (domain, task) if slash and domain in choices("domain") else (None, text)


def task_ids_of(config: Config, domain: str) -> list[str] | None:
    """The ids asked for in one domain, each once; None: all its tasks, empty: none of them."""
    if config.task_ids is None:
        return None
    pairs = [split_task_id(text) for text in config.task_ids]
    return list(dict.fromkeys(task for named, task in pairs if named in (None, domain)))
