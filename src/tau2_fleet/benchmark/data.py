"""Where the files of a benchmark's domains lie: in the installed package, in a folder that is named, or in both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError

_PLACES = (Path("tau2"), Path(), Path("data", "tau2"))
"""Where, below a folder that is named, `domains` and `user_simulator` may lie: a checkout's `data/`, its `tau2/`, or
the checkout itself."""
_OTHER_SETS = ("tasks_", "split_tasks_")
"""Names of further task files that the package carries and no task set here is read from."""
_OF_LATER_VERSIONS = ("user_db.json",)
"""Files that are read although the installed package has none of that name."""


@dataclass(frozen=True, slots=True)
class DomainFiles:
    """The files of one domain: each is the one of the first folder that has it."""

    folders: tuple[Path, ...]
    like: Path | None = None
    """A folder that says which files are read; None: all that these have. A checkout holds more than that."""
    kinds: tuple[str, ...] = (".json", ".toml", ".md")
    """What is read, by the ends of names."""

    def path(self, name: str) -> Path:
        """A file by its name; where it would be in the first folder, if it is in none."""
        return next((path for folder in self.folders if (path := folder / name).is_file()), self.folders[0] / name)

    def all(self) -> dict[str, Path]:
        """Every file that is read, by its name."""
        there = {name for folder in self.folders for name in self._names(folder)}
        if self.like is not None:
            there &= {*self._names(self.like), *_OF_LATER_VERSIONS}
        return {name: self.path(name) for name in sorted(there)}

    def _names(self, folder: Path) -> Iterator[str]:
        return (
            path.name
            for path in folder.iterdir()
            if path.suffix in self.kinds and path.is_file() and not path.name.startswith(_OTHER_SETS)
        )


def domain_folder(data_dir: Path, base: str) -> Path | None:
    """The folder of a domain's data (`retail`) below one that was named; None where it has none.

    A folder that is itself such a domain's folder is taken for it, too.
    """
    places = [*(data_dir / place / "domains" / base for place in _PLACES), data_dir / base, data_dir]
    return next((folder for folder in places if (folder / "tasks.json").is_file()), None)


def guidelines_file(data_dir: Path, name: str) -> Path | None:
    """A file of the simulated user's guidelines below a folder that was named; None where it has none."""
    places = (data_dir / place / "user_simulator" / name for place in _PLACES)
    return next((path for path in places if path.is_file()), None)


def missing_data(name: str, data_dir: Path, origin: str, base: str) -> UserError:
    """What to say where a folder has no data of a domain."""
    wanted = Path("tau2", "domains", base, "tasks.json")
    return UserError(f"domain {name}: no data in {data_dir}{origin}: {wanted} is missing")
