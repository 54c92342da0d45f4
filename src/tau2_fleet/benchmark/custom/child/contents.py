"""What somebody's registry holds: domains, task sets, policies, tools, and the texts beside them."""

from __future__ import annotations

import importlib
import inspect
import platform
from pathlib import Path
from typing import Any

from .environments import RegistryDomain, of_tau2, tool_type, toolkits
from .loading import UnusableCode

_GUIDELINES = {
    "without_tools": "simulation_guidelines.md",
    "with_tools": "simulation_guidelines_tools.md",
}


def describe(registry: Any, stand_ins: list[str]) -> dict[str, Any]:
    """The code as a whole."""
    data_dir = _data_dir()
    return {
        "python": platform.python_version(),
        "domains": list(registry.get_domains()),
        "task_sets": list(registry.get_task_sets()),
        "rules": _rules(),
        "data_dir": None if data_dir is None else str(data_dir),
        "guidelines": _guidelines(data_dir),
        "stand_ins": stand_ins,
    }


def _rules() -> str:
    """By which version's rules this code scores."""
    environment = of_tau2("environment.environment", "Environment")
    return "tau2-1.0.1" if hasattr(environment, "_is_mutating_tool") else "tau2-0.2"


def _data_dir() -> Path | None:
    try:
        return Path(importlib.import_module("tau2.utils.utils").DATA_DIR)
    except (ImportError, AttributeError):
        return None


def _guidelines(data_dir: Path | None) -> dict[str, str]:
    """How its simulated users behave; a text that is not there is left out."""
    found = {}
    for name, file in _GUIDELINES.items():
        path = Path(data_dir or ".", "tau2", "user_simulator", file)
        if data_dir is not None and path.is_file():
            found[name] = path.read_text(encoding="utf-8")
    return found


def domain_contents(domain: RegistryDomain) -> dict[str, Any]:
    """Policies, tools and databases of a domain that needs no task for them."""
    environment = domain.new()
    try:
        solo: str | None = domain.new(solo=True).get_policy()
    except Exception:
        solo = None
    return {**task_contents(environment, None), "solo_policy": solo, "by_task": domain.by_task}


def task_contents(environment: Any, task: Any | None) -> dict[str, Any]:
    """What one task's agent and user are given."""
    offered = getattr(task, "user_tools", None)
    return {
        "policy": environment.get_policy(),
        "agent_tools": [tool.openai_schema for tool in environment.get_tools()],
        "user_tools": None if environment.user_tools is None else _user_tools(environment, offered),
        "tool_types": {
            name: tool_type(toolkit, name)
            for toolkit in reversed(list(toolkits(environment)))
            for name in toolkit.tools
        },
    }


def _user_tools(environment: Any, offered: list[str] | None) -> list[dict[str, Any]]:
    """A name among the offered ones that there is not: none at all, as the benchmark has it."""
    schemas = {tool.name: tool.openai_schema for tool in environment.get_user_tools()}
    if offered is None:
        return list(schemas.values())
    if not set(offered) <= schemas.keys():
        return []
    return [schema for name, schema in schemas.items() if name in offered]


def splits(registry: Any, name: str) -> dict[str, list[str]]:
    """The named task sets of a domain, where it has any."""
    find = getattr(registry, "get_task_splits_loader", None)
    load = find(name) if find is not None else None
    return {} if load is None else {split: [str(one) for one in ids] for split, ids in load().items()}


def tasks(registry: Any, name: str, split: str | None) -> list[dict[str, Any]]:
    """The tasks of a set of the registry; None: all that its loader gives.

    Raises:
        UnusableCode: there is no such set.
    """
    if name not in registry.get_task_sets():
        sets = ", ".join(registry.get_task_sets())
        raise UnusableCode(f"the registry has no task set {name}; it has {sets}")
    load = registry.get_tasks_loader(name)
    takes_split = bool(inspect.signature(load).parameters)
    found = load(split) if takes_split else load()
    return [task.model_dump(mode="json") for task in found]
