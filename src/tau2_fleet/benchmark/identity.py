"""Which benchmark a number is of: name, scoring, and digests of code and data; `summary.json` holds it as `benchmark`.

`VersionTraits.identity` makes one; results files, tables and W&B show it, comparisons refuse to mix them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.paths import DATA_DIR

_RELEASED = DATA_DIR / "benchmarks.json"
"""Digests of the data as they were released, by benchmark and domain."""
SHORT = 12
"""Hexadecimal digits of a digest that people are shown."""
GUIDELINES = "user_simulator"
"""The name under which the simulated user's guidelines stand beside the domains."""


class IdentifiedDomain(Protocol):
    """What of a domain its identity is made of."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> DomainFiles: ...

    @property
    def source(self) -> Path | None:
        """The folder of its data; None: the installed package's."""

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of what a result depends on."""


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """The code that plays the domains."""

    package: str
    version: str
    digest: str
    """SHA-256 (hex) of the source files of its domains, environments and evaluators, and of what was added here."""


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """Tasks, databases, policies, and the simulated user's guidelines."""

    source: str | None
    """The folder that was named; None: the installed package's data."""
    digest: str
    """Of all those below."""
    domains: dict[str, str]
    """SHA-256 (hex) of each domain's files by the domain's name."""
    guidelines: str = ""
    """The same of the user's guidelines."""


@dataclass(frozen=True, slots=True)
class BenchmarkIdentity:
    """What a result is a result of."""

    name: str
    scoring: str
    code: CodeIdentity
    data: DataIdentity
    changed: dict[str, str] = field(default_factory=dict)
    """Domains (and the guidelines) whose data are not those of the release, with the digests of what they are."""

    @property
    def label(self) -> str:
        """For tables: the name, and what about it is not as released."""
        scoring = "" if self.scoring == self.name else f", scored as {self.scoring}"
        changed = f", changed data: {', '.join(self.changed)}" if self.changed else ""
        return f"{self._name}{scoring}{changed}"

    @property
    def _name(self) -> str:
        if self.name != "custom":
            return self.name
        return f"custom ({self.code.package} {self.code.version}, code {self.code.digest[:SHORT]})"

    @property
    def beyond_keys(self) -> dict[str, str]:
        """Digests on which results depend and that no key of the configuration says."""
        return self.changed | ({"code": self.code.digest} if self.name == "custom" else {})

    def as_dict(self) -> dict[str, Any]:
        """The block of `summary.json`."""
        return {**asdict(self), "label": self.label}

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> BenchmarkIdentity:
        """That of a run by its `summary.json`; a run of an earlier release was of tau2-0.2, its digests unknown."""
        block = summary.get("benchmark")
        try:
            return cls(
                str(block["name"]),  # type: ignore[index]
                str(block["scoring"]),  # type: ignore[index]
                CodeIdentity(**block["code"]),  # type: ignore[index]
                DataIdentity(**block["data"]),  # type: ignore[index]
                dict(block.get("changed") or {}),  # type: ignore[union-attr]
            )
        except (KeyError, TypeError):
            return cls("tau2-0.2", "tau2-0.2", CodeIdentity("", "", ""), DataIdentity(None, "", {}))

    def departures(self) -> dict[str, tuple[str, str]]:
        """Changed data as departures: key to (digest as released, digest of what was run)."""
        known = released(self.name)
        return {
            f"benchmark.data.{part}": (known.get(part, "")[:SHORT], digest[:SHORT])
            for part, digest in self.changed.items()
        }


def data_identity(
    source: Path | None, files: Mapping[str, Mapping[str, Path]], guidelines_texts: Sequence[str]
) -> DataIdentity:
    """The digests of what was read.

    Args:
        source: the folder that was named.
        files: of each domain: file name to path.
        guidelines_texts: those of the simulated user, as they are used.
    """
    parts = {part: files_digest(tuple(sorted(named.items()))) for part, named in files.items()}
    guidelines = _sha256(json.dumps(guidelines_texts).encode())
    together = _sha256(json.dumps([parts, guidelines], sort_keys=True).encode())
    return DataIdentity(None if source is None else str(source), together, parts, guidelines)


def changed_data(name: str, data: DataIdentity) -> dict[str, str]:
    """Parts that are not as they were released; nothing is known of a benchmark or domain that is not listed."""
    known = released(name)
    parts = {**data.domains, GUIDELINES: data.guidelines}
    return {part: digest for part, digest in parts.items() if part in known and digest and digest != known[part]}


@cache
def released(name: str) -> dict[str, str]:
    """Digests of a benchmark's data as released, by part."""
    found = json.loads(_RELEASED.read_bytes()).get(name, {})
    return {str(part): str(digest) for part, digest in found.items()}


def files_digest(files: tuple[tuple[str, Path], ...]) -> str:
    """One digest of several files and their names."""
    return _sha256(json.dumps([[name, file_digest(path)] for name, path in files]).encode())


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file; read once as long as it is not changed."""
    about = path.stat()
    return _file_digest(str(path), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4096)
def _file_digest(path: str, _changed_ns: int, _size: int) -> str:
    return _sha256(Path(path).read_bytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
