"""What the servers know of the tasks: written to a file by the runner at launch, read by each server.

The file holds per `<domain>/<quoted task id>` the gold actions in order, the facts to communicate and
the assertions; nothing of the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One gold action; `number` counts from 1 over the actions of both sides."""

    number: int
    by_user: bool
    name: str
    arguments: dict[str, Any]
    encoded: str
    """`arguments` as JSON text, as a model would write them."""


@dataclass(frozen=True, slots=True)
class Script:
    """What to play for one task."""

    steps: tuple[Step, ...]
    facts: tuple[str, ...]
    """To be told to the user, word by word."""
    assertions: tuple[str, ...]
    """What a judge is asked about."""
    has_history: bool
    """The task begins in the middle of a conversation."""


class Scripts:
    """The scripts of a file, each made ready when it is first asked for."""

    def __init__(self, raw: Mapping[str, list[Any]]) -> None:
        self._raw = raw
        self._ready: dict[str, Script] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def get(self, domain: str, quoted_task_id: str) -> Script | None:
        """The script of a task, its id percent-encoded as in a session id; None when it is not known."""
        key = f"{domain}/{quoted_task_id}"
        script = self._ready.get(key)
        if script is None:
            raw = self._raw.get(key)
            if raw is None:
                return None
            script = self._ready[key] = _script(raw)
        return script


def _script(raw: list[Any]) -> Script:
    actions, facts, assertions, has_history = raw
    steps = tuple(
        Step(number, bool(by_user), name, arguments, orjson.dumps(arguments).decode())
        for number, (by_user, name, arguments) in enumerate(actions, start=1)
    )
    return Script(steps, tuple(facts), tuple(assertions), bool(has_history))


def read_script_file(path: Path) -> Scripts:
    """Read what `write_script_file` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a script file of this format.
    """
    content = orjson.loads(path.read_bytes())
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("tasks"), dict):
        raise ValueError(f"{path} is not a script file of format {FORMAT}")
    return Scripts(content["tasks"])


def write_script_file(path: Path, tasks: Mapping[str, Sequence[Any]]) -> None:
    """Write the scripts of `tasks` for the servers.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_bytes(script_file(tasks))


def script_file(tasks: Mapping[str, Sequence[Any]]) -> bytes:
    """What stands in a script file: of `tasks`, domain name -> tau2 `Task` objects, or their dictionaries."""
    scripts = {
        f"{domain}/{quote(_field(task, 'id'), safe='')}": _raw_script(task)
        for domain, domain_tasks in tasks.items()
        for task in domain_tasks
    }
    return orjson.dumps({"format": FORMAT, "tasks": scripts})


def _raw_script(task: Any) -> list[Any]:
    criteria = _field(task, "evaluation_criteria")
    initial_state = _field(task, "initial_state")
    actions = [
        [
            int(_field(action, "requestor") == "user"),
            _field(action, "name"),
            _field(action, "arguments") or {},
        ]
        for action in _items(criteria, "actions")
    ]
    return [
        actions,
        list(_items(criteria, "communicate_info")),
        list(_items(criteria, "nl_assertions")),
        int(bool(list(_items(initial_state, "message_history")))),
    ]


def _items(holder: Any, name: str) -> Iterable[Any]:
    return _field(holder, name) or ()


def _field(holder: Any, name: str) -> Any:
    if holder is None:
        return None
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
