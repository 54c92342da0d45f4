"""Where somebody's tau2 lies, which version it is, and by what digest its code is known."""

from __future__ import annotations

import hashlib
import re
import tomllib
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.errors import UserError
from tau2_fleet.paths import caches

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "benchmark.path"
_PACKAGE = "tau2"
_MOST_UNPACKED = 2 << 30
"""Bytes that a wheel may come to."""


@dataclass(frozen=True)
class PackagePlace:
    """A folder that holds the package `tau2`."""

    given: str
    """As the user named it."""
    root: Path
    """What must be on the path of Python to import it."""

    @property
    def package(self) -> Path:
        return self.root / _PACKAGE

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the package's Python files, names and contents."""
        return code_digest(self.package)

    @property
    def version(self) -> str | None:
        """The distribution's version, by what lies beside the package or above it; None where nothing says it."""
        for metadata in sorted(self.root.glob("*.dist-info/METADATA")):
            headers = HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
            if headers["Name"] in (_PACKAGE, f"nvidia-{_PACKAGE}"):
                return headers["Version"]
        for folder in (self.root, *self.root.parents[:1]):
            try:
                about = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            project = about.get("project")
            version = project.get("version") if isinstance(project, dict) else None
            return str(version) if version is not None else None
        return None


def find(path: str) -> PackagePlace:
    """The package in a checkout, a wheel, a folder of installed packages, or given itself.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser().resolve()
    if given.is_file() and given.suffix == ".whl":
        given = _unpacked(given)
    for root in _candidates(given):
        if (root / _PACKAGE / "registry.py").is_file():
            return PackagePlace(path, root)
    what = (
        "there is no such file or directory" if not given.exists() else f"no package {_PACKAGE} with a registry there"
    )
    raise UserError(f"{KEY}={path}: {what}; give a checkout of tau2, a wheel, or a folder into which it was installed")


def _candidates(given: Path) -> Iterator[Path]:
    yield given / "src"
    yield given
    if given.name == _PACKAGE:
        yield given.parent
    yield from sorted(given.glob("lib/python3*/site-packages"))


def code_digest(package: Path) -> str:
    """SHA-256 of a package's Python files, names and contents."""
    digest = hashlib.sha256()
    files = [path for path in package.rglob("*.py") if path.is_file()]
    for path in sorted(files, key=lambda path: path.relative_to(package).as_posix()):
        name, content = path.relative_to(package).as_posix().encode(), path.read_bytes()
        digest.update(b"%d:%s%d:" % (len(name), name, len(content)))
        digest.update(content)
    return digest.hexdigest()


def _unpacked(wheel: Path) -> Path:
    """The folder of a wheel's files, among those that outlive a run.

    Raises:
        UserError: it is no wheel, or it would write beyond its folder.
    """
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", wheel.stem)[:80]
    try:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{KEY}={wheel}: cannot be read: {error.strerror}") from error
    folder = caches() / "benchmarks" / f"{name}-{digest[:16]}"
    done = folder / ".whole"
    if done.is_file():
        return folder
    try:
        with zipfile.ZipFile(wheel) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED:
                raise UserError(f"{KEY}={wheel}: its files come to more than {_MOST_UNPACKED >> 30} GiB")
            archive.extractall(folder)  # takes `..` and leading slashes off the names
        done.touch()
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:  # the last: it asks for a password
        raise UserError(f"{KEY}={wheel}: cannot be unpacked in {folder}: {error}") from error
    return folder
