"""Files of finished simulations, read with care: the benchmark's results schema, and this program's record.

`rescore` reads with it; what is wrong with a file is said in a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Task
    from tau2_fleet.evaluation.reward import NLCheck

SOLO_AGENT = "llm_agent_solo"
"""How the results schema names an agent that works alone."""

_RECORD_KEYS = {"domain": str, "task_id": str, "trial": int, "messages": list, "termination_reason": str}


@dataclass(frozen=True, slots=True)
class Results:
    """A file in the benchmark's results schema."""

    domain: str
    solo: bool
    tasks: dict[str, Task]
    """The file's own, by id."""
    raw: dict[str, Any]
    """The whole file as it was read; `simulations` are parts of it."""

    @property
    def simulations(self) -> list[dict[str, Any]]:
        simulations: list[dict[str, Any]] = self.raw["simulations"]
        return simulations


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        UserError: it cannot be read or is of another form.
    """
    from pydantic import ValidationError

    from tau2_fleet.benchmark.package import Task

    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    for key, kind in {"info": dict, "tasks": list, "simulations": list}.items():
        if not isinstance(raw, dict) or not isinstance(raw.get(key), kind):
            raise _not_results(path, f"no {key!r} in it")
    for index, simulation in enumerate(raw["simulations"]):
        if not isinstance(simulation, dict):
            raise _not_results(path, f"simulation {index} is not an object")
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
    return Results(domain, solo, tasks, raw)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a `simulations.jsonl`; a torn last line is left out.

    Raises:
        UserError: a line is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise UserError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or any(
            not isinstance(record.get(key), kind) for key, kind in _RECORD_KEYS.items()
        ):
            raise UserError(f"{path}: line {number} is not the record of a simulation")
        yield record


def recorded_verdicts(reward_info: Mapping[str, Any]) -> list[NLCheck] | None:
    """The judge's verdicts in a simulation's reward information; None when it holds none."""
    from tau2_fleet.evaluation.reward import NLCheck

    checks = reward_info.get("nl_assertions")
    if not isinstance(checks, list):
        return None
    try:
        return [
            NLCheck(str(check["nl_assertion"]), check["met"] is True, str(check.get("justification", "")))
            for check in checks
        ]
    except (KeyError, TypeError, AttributeError):
        return None


def _not_results(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: not a file in the benchmark's results schema: {problem}")
