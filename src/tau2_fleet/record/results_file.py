"""Reads a file in the benchmark's results schema, written by this program or another one.

A file that this program wrote is read one simulation at a time, whatever its size; `rescore` asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import decode_line, encode_line

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Task

SOLO_AGENT = "llm_agent_solo"
"""How the results schema names the benchmark's agent that works alone."""
_OPENING = b'"simulations": ['
"""The line after which a file of this program has a simulation a line."""
_CLOSING = b"]}"
_PARTS: dict[str, type] = {"info": dict, "tasks": list, "simulations": list}

Simulation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """A file in the benchmark's results schema."""

    path: Path
    domain: str
    solo: bool
    tasks: dict[str, Task]
    """The file's own, by id."""
    head: dict[str, Any]
    """Everything but the simulations."""
    simulations: Callable[[], Iterator[Simulation]]
    """Reads the simulations one after the other; a UserError when the file is broken on the way."""

    @contextmanager
    def writer(self, target: Path) -> Iterator[Callable[[Simulation], None]]:
        """What writes the file again, to `target`, one simulation after the other.

        Raises:
            UserError: it cannot be written.
        """
        with replaced(target) as file:
            head = {name: part for name, part in self.head.items() if name not in ("tasks", "simulations")}
            file.write(encode_line(head).rstrip()[:-1] + b',\n"tasks": [\n')
            for index, task in enumerate(self.head["tasks"]):
                file.write((b"," if index else b"") + encode_line(task))
            file.write(b"],\n" + _OPENING + b"\n")
            between = b""

            def write(simulation: Simulation) -> None:
                nonlocal between
                file.write(between + encode_line(simulation))
                between = b","

            yield write
            file.write(_CLOSING + b"\n")


def read_results(path: Path) -> Results:
    """Read a results file's head, and make sure of its form.

    Raises:
        UserError: it cannot be read or is of another form.
    """
    from pydantic import ValidationError

    from tau2_fleet.benchmark.package import Task

    raw, simulations = _read(path)
    environment, agent = (raw["info"].get(key) for key in ("environment_info", "agent_info"))
    domain = environment.get("domain_name") if isinstance(environment, dict) else None
    if not isinstance(domain, str):
        raise _not_results(path, "no info.environment_info.domain_name in it")
    try:
        tasks = {task.id: task for task in map(Task.model_validate, raw["tasks"])}
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise _not_results(path, f"a task is not of the benchmark's form: {where}: {problem['msg']}") from error
    solo = isinstance(agent, dict) and agent.get("implementation") == SOLO_AGENT
    return Results(path, domain, solo, tasks, raw, simulations)


def _read(path: Path) -> tuple[dict[str, Any], Callable[[], Iterator[Simulation]]]:
    """The head of a file, and what reads its simulations."""
    try:
        head = _head_of_ours(path)
        if head is not None:
            return head, lambda: _simulations_of_ours(path)
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    for key, kind in _PARTS.items():
        if not isinstance(raw, dict) or not isinstance(raw.get(key), kind):
            raise _not_results(path, f"no {key!r} in it")
    simulations = raw.pop("simulations")
    for index, simulation in enumerate(simulations):
        if not isinstance(simulation, dict):
            raise _not_results(path, f"simulation {index} is not an object")
    return raw, lambda: iter(simulations)


def _head_of_ours(path: Path) -> dict[str, Any] | None:
    """The head of a file with a simulation a line; None for another one."""
    lines = []
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            if line.strip() == _OPENING:
                try:
                    head = json.loads(b"".join(lines) + _CLOSING)
                except ValueError:
                    return None
                whole = isinstance(head, dict) and all(isinstance(head.get(key), _PARTS[key]) for key in _PARTS)
                return head if whole and _ends_as_ours(path) else None
    return None


def _ends_as_ours(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16))
        return file.read().rstrip().endswith(b"\n" + _CLOSING)


def _simulations_of_ours(path: Path) -> Iterator[Simulation]:
    with path.open("rb") as file:
        for line in file:
            if line.strip() == _OPENING:
                break
        for index, line in enumerate(file):
            if line.strip() == _CLOSING:
                return
            try:
                simulation = decode_line(line.removeprefix(b","))
            except ValueError as error:
                raise UserError(f"{path}: simulation {index} is not JSON: {error}") from error
            if not isinstance(simulation, dict):
                raise _not_results(path, f"simulation {index} is not an object")
            yield simulation


def _not_results(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: not a file in the benchmark's results schema: {problem}")
