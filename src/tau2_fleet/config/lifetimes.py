"""What the files say of models' lives, and in which words people are told that one ends.

A run's start, its resume, the doctor and the messages about choices that are gone read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.llm.lifetime import ModelEnd, own_name
from tau2_fleet.llm.settings import LifetimeSettings
from tau2_fleet.paths import CONF_DIR, DATA_DIR

LOOK_AGAIN_DAYS = 180
"""A file that nobody has compared with its provider for longer is worth another look."""
ENDED_MODELS = DATA_DIR / "ended_models.yaml"


@cache
def known_lifetimes() -> dict[str, LifetimeSettings]:
    """By model: what the files of `conf/llm/` say, and what is kept of models that have ended."""
    stated = [_read(path).get("lifetime") for path in sorted((CONF_DIR / "llm").glob("*.yaml"))]
    found = [LifetimeSettings(**entry) for entry in stated if entry]
    return {own_name(lifetime.model): lifetime for lifetime in found} | ended_models()


@cache
def ended_models() -> dict[str, LifetimeSettings]:
    """The models that are gone from `conf/`, by name."""
    return {name: LifetimeSettings(model=name, **entry) for name, entry in _read(ENDED_MODELS)["models"].items()}


def gone_choice(group: str, choice: str) -> str | None:
    """What to say to somebody who asks for a file that left with its model; None: there never was one."""
    ended = ended_models().get(choice)
    if ended is None:
        return None
    role = {"user_llm": "user", "judge": "judge"}.get(group)
    instead = f"{ended.successor} in its place" if role is None else replacement(role, ended.successor)
    return f"{group}={choice}: {choice} ended on {ended.ends}. Its successor: {instead}"


def replacement(role: str, successor: str | None) -> str:
    """The override that puts a model's successor into a role, ready to paste."""
    if role.startswith("expert"):
        return "experts=current"
    group = "user_llm" if role == "user" else role
    if successor is None:
        return f"{group}=..."
    if successor in SHIPPED.choices(group):
        return f"{group}={successor}"
    return f"llm@{group}={successor}" if successor in SHIPPED.choices("llm") else f"{group}.model={successor}"


def warning(end: ModelEnd, today: date) -> str:
    """One line for a model whose end is near."""
    days = (end.ends - today).days
    when = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
    return f"{_named(end)} ends on {end.ends}, {when} ({end.source}); {_replacements([end])} takes its successor"


def refusal(ended: Sequence[ModelEnd], experiment: str | None, begun: Path | None = None) -> str:
    """Two lines for models that cannot be asked any longer: which, and the ways out.

    Args:
        experiment: the recipe that the run started from.
        begun: the run directory, where the run was begun before.
    """
    which = ", ".join(f"{_named(end)} ended on {end.ends}" for end in ended)
    what = f"experiment={experiment} cannot be run any longer: " if experiment else ""
    instead = _replacements(ended)
    if begun is not None:
        return (
            f"{begun} was begun with models that have ended since: {which} ({_sources(ended)}).\n"
            f"What is scored stays. Begin a new run with {instead}, or mix models knowingly, with resume_force=true."
        )
    ways = f"{instead} takes the successors"
    if experiment:
        ways = f"leave out experiment={experiment} (the plain defaults are living models), or keep the rest: {ways}"
    return f"{what}{which} ({_sources(ended)}).\nWays out: {ways}."


def _named(end: ModelEnd) -> str:
    return f"{end.model} ({', '.join(end.roles)})"


def _replacements(ends: Sequence[ModelEnd]) -> str:
    return " ".join(dict.fromkeys(replacement(role, end.successor) for end in ends for role in end.roles))


def _sources(ends: Sequence[ModelEnd]) -> str:
    return ", ".join(dict.fromkeys(end.source for end in ends))


def looked_long_ago(today: date, folders: Mapping[Path, str]) -> list[str]:
    """A line for each YAML file that states a day of looking, and that nobody has looked at again for long.

    Args:
        folders: each with the key under which its files hold the day, empty for their top.
    """
    lines = []
    for folder, key in folders.items():
        for path in sorted(folder.glob("*.yaml")):
            found = _read(path)
            looked = (found.get(key) or {} if key else found).get("looked")
            days = None if looked is None else (today - date.fromisoformat(looked)).days
            if days is not None and days > LOOK_AGAIN_DAYS:
                lines.append(f"look again: {path.relative_to(folder.parent.parent)} was compared {days} days ago")
    return lines


def _read(path: Path) -> dict[str, Any]:
    """All values as they are written: no dates are made of them."""
    import yaml  # where a command line is right nothing is read

    found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return found if isinstance(found, dict) else {}
