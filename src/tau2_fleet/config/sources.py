"""Where the files of the configuration lie: the program's own `conf/`, and folders that a command line adds to it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.config.checked_files import text_of
from tau2_fleet.config.flags import apart, folders, is_flag
from tau2_fleet.errors import UserError
from tau2_fleet.paths import CONF_DIR


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders like `conf/`: each holds groups, each group a file per choice."""

    folders: tuple[Path, ...] = (CONF_DIR,)

    def choices(self, group: str) -> list[str]:
        """The options of a group; empty when there is no such group."""
        found = [path for folder in self.folders for path in (folder / group).glob("*.yaml")]
        return sorted({path.stem for path in found if path.is_file()})

    def unreadable(self, group: str, choice: str) -> Path | None:
        """What stands in the place of a choice's file, and is none; None: nothing."""
        places = [folder / group / f"{choice}.yaml" for folder in self.folders]
        return next((path for path in places if os.path.lexists(path) and not path.is_file()), None)

    def groups(self) -> list[str]:
        """The groups but Hydra's own; those within another with a slash (`agent/scaffold`)."""
        found = {
            path.parent.relative_to(folder).as_posix() for folder in self.folders for path in folder.glob("*/**/*.yaml")
        }
        return sorted(name for name in found if name.partition("/")[0] != "hydra")

    def options(self, group: str) -> dict[str, list[str]]:
        """What the files of a group hold beside a `_target_`: choice to names, as far as they can be read."""
        import yaml

        found: dict[str, list[str]] = {}
        for path in [path for folder in self.folders for path in sorted((folder / group).glob("*.yaml"))]:
            try:
                content = yaml.safe_load(text_of(path))
            except (UserError, yaml.YAMLError):
                continue
            if isinstance(content, dict):
                found[path.stem] = [str(name) for name in content if not str(name).startswith("_")]
        return found


SHIPPED = Sources()
"""The program's own files alone."""


def sources(arguments: Sequence[str]) -> Sources:
    """The program's own folder and those that these arguments add with `--config-dir` and `hydra.searchpath`."""
    return Sources((CONF_DIR, *(folder for text in added_folders(arguments) if (folder := _folder(text)) is not None)))


def added_folders(arguments: Sequence[str]) -> list[str]:
    """What these arguments add to the search path, as they say it."""
    flags, settings = apart(arguments)
    found = folders(flags)
    for setting in settings:
        if _is_search_path(setting):
            found += _listed(setting.partition("=")[2])
    return found


def search_path(folders: Sequence[str]) -> list[str]:
    """The override that adds these folders, wherever it is used from; none where there are none."""
    listed = ",".join(f'"{_with_scheme(text)}"' for text in folders)
    return [f"hydra.searchpath=[{listed}]"] if listed else []


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra's compose API, which knows no flags: folders as `hydra.searchpath`.

    Raises:
        UserError: there is a flag that says something else.
    """
    flags, settings = apart(arguments)
    if not flags:
        return list(arguments)
    if len(folders(flags)) != sum(is_flag(argument) for argument in flags):
        raise UserError(f"{' '.join(flags)}: of Hydra's flags only --config-dir has a meaning here")
    kept = [setting for setting in settings if not _is_search_path(setting)]
    return [*kept, *search_path(added_folders(arguments))]


def refuse_missing_folders(arguments: Sequence[str]) -> None:
    """Raises UserError for a folder that these arguments add and that is not there: Hydra would only mutter."""
    for text in added_folders(arguments):
        folder = _folder(text)
        if folder is not None and not folder.is_dir():
            raise UserError(f"{text}: there is no such directory of configuration files")
        if folder is None and text.startswith("pkg://"):
            raise UserError(f"{text}: there is no such package")


def _is_search_path(setting: str) -> bool:
    return setting.lstrip("+").partition("=")[0] == "hydra.searchpath"


def _listed(text: str) -> Iterator[str]:
    """The elements of a list as a command line has it."""
    for part in re.split(r",(?=\S)|, ", text.strip().strip("'\"").removeprefix("[").removesuffix("]")):
        if plain := part.strip().strip("'\""):
            yield plain


def _with_scheme(text: str) -> str:
    return text if "://" in text else f"file://{Path(text).expanduser().absolute()}"


def _folder(text: str) -> Path | None:
    """The folder that an entry of the search path means; None where it cannot be one (Hydra says so)."""
    scheme, found, rest = text.rpartition("://")
    if not found or scheme == "file":
        return Path(rest).expanduser()
    if scheme != "pkg":
        return None
    package, *inner = rest.replace("/", ".").split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0], *inner) if places else None
