"""Which tasks `task_ids` means in which domain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tau2_fleet.config.schema import Config
from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.errors import UserError
from tau2_fleet.regular import read_given


def split_task_id(text: str, selected: Iterable[str]) -> tuple[str | None, str]:
    """Domain and id of an entry of `task_ids`; `5` has no domain, `retail/5` has.

    What stands before the slash is a domain if it is one of the `selected` or of the program's own.
    """
    domain, slash, task = text.partition("/")
    known = slash and (domain in selected or domain in SHIPPED.choices("domain"))
    return (domain, task) if known else (None, text)


def read_task_ids(path: Path) -> list[str]:
    """The tasks that a file names, one a line and each once; empty lines and those that begin with # are passed over.

    Raises:
        UserError: it cannot be read, or names none.
    """
    try:
        lines = read_given(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise UserError(f"task_ids_file={path}: {why}") from None
    ids = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not ids:
        raise UserError(f"task_ids_file={path}: it names no task (wanted: one domain/id a line)")
    return list(dict.fromkeys(ids))


def task_ids_of(config: Config, domain: str) -> list[str] | None:
    """The ids asked for in one domain, each once; None: all its tasks, empty: none of them."""
    if config.task_ids is None:
        return None
    pairs = [split_task_id(text, config.domain) for text in config.task_ids]
    return list(dict.fromkeys(task for named, task in pairs if named in (None, domain)))
