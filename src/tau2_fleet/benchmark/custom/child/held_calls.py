"""Tool calls that can hold the process for ever are made in a fork, under a limit of processor time.

The benchmark's `calculate` evaluates powers: `9**9**9` ends in no time that anybody has, in one step of Python.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Mapping
from typing import Any

CPU_LIMIT_S = 2
_LONG = 500
"""Characters: a longer expression can nest deep enough to bring the process down."""


class Held(Exception):
    """The call did not end within its limit."""


def can_hold(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call may never end."""
    expression = arguments.get("expression")
    return name == "calculate" and isinstance(expression, str) and ("**" in expression or len(expression) > _LONG)


def in_fork(run: Callable[[], Any]) -> Any:
    """What `run` gives, as JSON would give it back; what it changes is lost.

    Raises:
        Held: it reached the limit, or the fork died of it.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(run()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    try:
        return json.loads(text)
    except ValueError:
        raise Held(f"it reached its limit of {CPU_LIMIT_S} s of processor time") from None
