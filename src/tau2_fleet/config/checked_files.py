"""Refuses files of a configuration that nobody could read in bounded time and memory, before Hydra opens them.

`schema.register` has Hydra's own source of files ask here; folders of one's own come with `--config-dir`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.errors import UserError
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.regular import open_file

if TYPE_CHECKING:
    from hydra.plugins.config_source import ConfigResult, ConfigSource

_LARGEST = 2**20
"""Bytes of one file."""
_MOST_VALUES = 20_000
"""Of one file, with what its aliases stand for: a few lines of them could unfold to gigabytes."""
_DEEPEST = 100
"""Levels of lists and mappings."""


def text_of(path: Path) -> str:
    """The text of a file of a configuration that can be loaded.

    Raises:
        UserError: it is no file, too large, no UTF-8 text, or would unfold to more than any configuration holds.
    """
    try:
        with open_file(path) as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: it is no UTF-8 text; save it as such") from None
    if text.startswith("\ufeff"):
        raise UserError(f"{path}: it begins with a byte order mark, which hides its first line: save it without")
    if len(data) > _LARGEST:
        raise UserError(f"{path}: it is larger than {_LARGEST >> 20} MB, which no file of a configuration is")
    if (problem := _unfolding(text)) is not None:
        raise UserError(f"{path}: {problem}")
    return text


def check_files_of_hydra() -> None:
    """From now on Hydra opens only files that `text_of` takes; its own source of files has no place for a check."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # it loads all sources anew
    files = SourcesRegistry.instance().resolve("file")
    original = files.load_config
    if getattr(original, "checks", False):
        return

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        folder = os.path.realpath(source.path)
        path = Path(folder, source._normalize_file_name(config_path))
        if path.exists() and folder != os.path.realpath(CONF_DIR):
            text_of(path)
        return original(source, config_path)

    load_config.checks = True  # type: ignore[attr-defined]
    files.load_config = load_config  # type: ignore[method-assign, assignment]


def _unfolding(text: str) -> str | None:
    """What is wrong with the size of what a text holds; None: nothing, or it is no YAML, which its reader says."""
    import yaml

    sizes: dict[str, int] = {}
    within = [0]
    """Values so far of each list or mapping that is open, the outermost first."""
    names: list[str | None] = []
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor in names:
                    return f"*{event.anchor} stands within what it means"
                within[-1] += sizes.get(event.anchor or "", 0)
            elif isinstance(event, yaml.ScalarEvent):
                within[-1] += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                within.append(1)
                names.append(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                size, name = within.pop(), names.pop()
                within[-1] += size
                if name is not None:
                    sizes[name] = size
            if within[-1] > _MOST_VALUES:
                return f"it holds more than {_MOST_VALUES:,} values, with those that its aliases (*name) stand for"
            if len(within) > _DEEPEST:
                return f"it is nested more than {_DEEPEST} deep"
    except yaml.YAMLError:
        return None
    return None
