"""From Hydra's composed tree to a `Config` that can be run; what its values may be together says `problems.py`."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.config import table
from tau2_fleet.config.compose import explain
from tau2_fleet.config.names import unknown_key
from tau2_fleet.config.problems import problems_of
from tau2_fleet.config.references import misplaced
from tau2_fleet.config.schema import PROMPT_FILES, Config
from tau2_fleet.config.sources import SHIPPED, Sources
from tau2_fleet.config.tasks import read_task_ids
from tau2_fleet.errors import UserError
from tau2_fleet.key import key_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


def load_config(tree: DictConfig, sources: Sources = SHIPPED) -> Config:
    """The run that a composed configuration describes.

    Args:
        tree: as Hydra composed it.
        sources: where its files lie, for what a message can suggest.

    Raises:
        UserError: a key is unknown, a value is out of range, or keys contradict each other.
    """
    config = unchecked_config(tree, sources)
    if config.task_ids_file is not None:
        if config.task_ids is not None:
            raise UserError("task_ids and task_ids_file both choose tasks: give one of them")
        config.task_ids = read_task_ids(Path(config.task_ids_file))
    validate(config, sources)
    return config


def unchecked_config(tree: DictConfig, sources: Sources = SHIPPED) -> Config:
    """The same without the rules on values: for references and saved configurations.

    Raises:
        UserError: a key is unknown or of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_unknown_keys(OmegaConf.to_container(tree, resolve=False), "", sources)
    try:
        config = OmegaConf.to_object(_without_unset(tree))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, Config)
    if (wrong := next(misplaced(config), None)) is not None:
        raise UserError(wrong)
    _tidy(config)
    return config


def validate(config: Config, sources: Sources = SHIPPED) -> None:
    """Raises UserError naming what cannot be: the first three problems, each in a line or two."""
    problems = list(problems_of(config, sources))
    if problems:
        more = f"\n({len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UserError("\n".join(problems[:3]) + more)


def _refuse_unknown_keys(tree: Any, prefix: str, sources: Sources) -> None:
    """Hydra itself lets `+key=value` add keys that no one reads."""
    if not isinstance(tree, dict):
        return
    for name, value in tree.items():
        key = f"{prefix}{name}"
        entry = table.find(key)
        if prefix == "domain.":
            _refuse_unknown_keys(value, f"{key}.", sources)
        elif entry is None:
            raise UserError(unknown_key(key, sources))
        elif entry.members is not None or key == "domain":
            _refuse_unknown_keys(value, f"{key}.", sources)


def own_paths(tree: DictConfig) -> dict[str, str]:
    """Key to absolute path of the prompt files, of the domains of one's own, and of a benchmark's code."""
    from omegaconf import OmegaConf

    domains = [
        name
        for name, domain in tree.domain.items()
        if OmegaConf.is_dict(domain) and not OmegaConf.is_missing(domain, "path")
    ]
    keys = [*(f"domain.{name}.path" for name in domains), *PROMPT_FILES, "benchmark.path"]
    if os.sep in (OmegaConf.select(tree, "benchmark.python") or ""):
        keys.append("benchmark.python")
    return {key: os.path.abspath(os.path.expanduser(path)) for key in keys if (path := OmegaConf.select(tree, key))}


def with_absolute_paths(tree: DictConfig) -> None:
    """Let what `own_paths` names be found from anywhere."""
    from omegaconf import OmegaConf

    for key, path in own_paths(tree).items():
        OmegaConf.update(tree, key, path)


def _without_unset(tree: DictConfig) -> DictConfig:
    """A price of which nothing is set is no price, and a domain whose path is not set is none (see `schema.schema`)."""
    from omegaconf import OmegaConf

    tree = copy.deepcopy(tree)
    for part in ("agent", "user_llm", "judge"):
        price = OmegaConf.select(tree, f"{part}.price")
        unset = [] if price is None else [name for name in price if OmegaConf.is_missing(price, name)]
        if len(unset) == 2 and price.cached_input is None:
            OmegaConf.update(tree, f"{part}.price", None)
        elif unset:
            raise UserError(f"{part}.price.{unset[0]} is not set: a price has input and output")
    OmegaConf.set_struct(tree, False)
    for name, domain in list(tree.domain.items()):
        if OmegaConf.is_dict(domain) and OmegaConf.is_missing(domain, "path"):
            del tree.domain[name]
    return tree


def _tidy(settings: Any) -> None:
    """Paths as programs know them: `~` is the home directory, and an empty text, as an unset variable leaves, none."""
    if isinstance(settings, dict):
        for part in settings.values():
            _tidy(part)
    if not dataclasses.is_dataclass(settings):
        return
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not isinstance(value, str) or not key_of(field).path:
            _tidy(value)
        elif not value:
            setattr(settings, field.name, field.default)
        elif value.startswith("~"):
            setattr(settings, field.name, os.path.expanduser(value))
