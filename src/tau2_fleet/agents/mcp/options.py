"""What `conf/agent/scaffold/mcp.yaml` says, checked. `agent.py` reads it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.errors import UserError

_KEY = "agent.scaffold"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How clients come to their seats."""

    name: str
    command: tuple[str, ...]
    """Empty: the clients come by themselves."""
    turn_limit_s: float | None
    time_limit_s: float | None
    environment: Mapping[str, str]
    """More variables, those of the keys that are handed on among them."""

    @classmethod
    def of(
        cls,
        name: Any,
        command: Any,
        wait: Any,
        turn_limit_s: Any,
        time_limit_s: Any,
        keys: Any,
        environment: Any,
    ) -> ClientOptions:
        """
        Raises:
            UserError: something of it cannot be.
        """
        if bool(command) == bool(wait):
            both = "both are given" if command else "neither is given"
            raise UserError(
                f"{_KEY}.command or {_KEY}.wait=true is wanted, and {both}: the first starts a client for each "
                "simulation, the second waits for clients that come by themselves"
            )
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{_KEY}.name={name}: a name for the results is wanted")
        for key, limit in (("turn_limit_s", turn_limit_s), ("time_limit_s", time_limit_s)):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0):
                raise UserError(f"{_KEY}.{key}={limit}: seconds are wanted, more than 0, or null for no limit")
        words = _words(command) if command else ()
        return cls(name, words, turn_limit_s, time_limit_s, _variables(keys, environment))


def _words(command: Any) -> tuple[str, ...]:
    """The words of a command; a file that is named from here is named from anywhere."""
    if not isinstance(command, str | Sequence):
        raise UserError(f"{_KEY}.command={command}: a line of words is wanted, or a list of them")
    try:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    except ValueError as error:
        raise UserError(f"{_KEY}.command={command}: {error}") from error
    if not words:
        raise UserError(f"{_KEY}.command is empty")
    program, *arguments = words
    found = shutil.which(os.path.expanduser(program))
    if found is None:
        raise UserError(f"{_KEY}.command: there is no program {program} to run")
    return os.path.abspath(found), *(str(Path(word).absolute()) if _is_file(word) else word for word in arguments)


def _is_file(word: str) -> bool:
    try:
        return bool(word) and Path(word).is_file()
    except (OSError, ValueError):
        return False


def _variables(keys: Any, environment: Any) -> dict[str, str]:
    if isinstance(keys, str):
        keys = [keys]
    if not isinstance(keys, Sequence) or not isinstance(environment, Mapping):
        raise UserError(f"{_KEY}.keys is a list of variables' names, {_KEY}.environment a mapping of names to values")
    names = [*map(str, keys), *map(str, environment)]
    if wrong := [name for name in names if not _NAME.fullmatch(name) or name.startswith("TAU2_FLEET_")]:
        raise UserError(f"{_KEY}.keys and {_KEY}.environment: {wrong[0][:80]} is no name for a variable here")
    if missing := [str(key) for key in keys if str(key) not in os.environ]:
        raise UserError(f"{_KEY}.keys: the environment has no {', '.join(missing)}")
    own = {str(name): str(value) for name, value in environment.items() if value is not None}
    return {str(key): os.environ[str(key)] for key in keys} | own
