"""Where the files of the configuration lie: the program's own `conf/`, and folders that a command line adds to it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.paths import CONF_DIR

_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
_SEARCH_PATH = "hydra.searchpath="


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders like `conf/`: each holds groups, each group a file per choice."""

    folders: tuple[Path, ...] = (CONF_DIR,)

    def choices(self, group: str) -> list[str]:
        """The options of a group; empty when there is no such group."""
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def groups(self) -> list[str]:
        """The groups but Hydra's own; those within another with a slash (`agent/scaffold`)."""
        found = {
            path.parent.relative_to(folder).as_posix() for folder in self.folders for path in folder.glob("*/**/*.yaml")
        }
        return sorted(name for name in found if name.partition("/")[0] != "hydra")

    def file(self, group: str, choice: str) -> Path | None:
        """The file of a choice; the last folder that has it, as the user's own are."""
        there = [path for folder in self.folders if (path := folder / group / f"{choice}.yaml").is_file()]
        return there[-1] if there else None


SHIPPED = Sources()
"""The program's own files alone."""


def sources(arguments: Sequence[str]) -> Sources:
    """The program's own folder and those that these arguments add with `--config-dir` and `hydra.searchpath`."""
    return Sources((CONF_DIR, *(folder for text in added_folders(arguments) if (folder := _folder(text)) is not None)))


def added_folders(arguments: Sequence[str]) -> list[str]:
    """What these arguments add to the search path, as Hydra is to be given it."""
    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, _, value = argument.partition("=")
        if flag in _FLAGS and value:
            found.append(value)
        elif before in _FLAGS and not argument.startswith("-"):
            found.append(argument)
        elif (plain := argument.lstrip("+")).startswith(_SEARCH_PATH):
            found += _listed(plain.removeprefix(_SEARCH_PATH))
    return found


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """The same arguments for Hydra's compose API, which knows no flags: folders as `hydra.searchpath`."""
    flagged = [
        place
        for place, (before, argument) in enumerate(zip(["", *arguments], arguments, strict=False))
        if argument.partition("=")[0] in _FLAGS or (before in _FLAGS and not argument.startswith("-"))
    ]
    if not flagged:
        return list(arguments)
    kept = [
        argument
        for place, argument in enumerate(arguments)
        if place not in flagged and not argument.lstrip("+").startswith(_SEARCH_PATH)
    ]
    folders = ",".join(f'"{_with_scheme(text)}"' for text in added_folders(arguments))
    return [*kept, f"{_SEARCH_PATH}[{folders}]"]


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
