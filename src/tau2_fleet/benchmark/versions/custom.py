"""Any checkout, wheel or installed folder of tau2: its domains, texts and rules, played in a process of its own.

Where its code is the installed package's, the domains known here are played here, on its data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark.custom import place
from tau2_fleet.benchmark.custom.process import Child, ChildError, ChildRefused
from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.identity import BenchmarkIdentity, CodeIdentity, DataIdentity, IdentifiedDomain
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.benchmark.version import BenchmarkVersion, offered_user_tools
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task

    from tau2_fleet.benchmark.custom.domain import CustomDomain
    from tau2_fleet.benchmark.domain import Domain

_LATER_RULES = "def _is_mutating_tool("
"""Stands in the environment's code since calls that change nothing are no longer replayed."""


class Version(BenchmarkVersion):
    """Somebody's tau2."""

    name = "custom"

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        settings = settings or BenchmarkSettings()
        if settings.path is None:
            raise UserError("benchmark=custom: name the code with benchmark.path=PATH (a checkout of tau2, or a wheel)")
        self.place = place.find(settings.path)
        self.scoring = "tau2-1.0.1" if _LATER_RULES in self._source("environment/environment.py") else "tau2-0.2"
        super().__init__(settings)
        if self.installed and self.data_dir is None and self.place.package != _installed_package():
            self.data_dir = self.place.package / "data"
        self.python = settings.python
        self.child = _child(self.place.root, settings.python, self.data_dir)

    def _source(self, module: str) -> str:
        try:
            return (self.place.package / module).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _key(self) -> tuple[object, ...]:
        return (*super()._key(), self.place.root, self.place.digest, self.python)

    @cached_property
    def installed(self) -> bool:
        """Whether its code is the installed package's, file by file."""
        return self.place.digest == _installed_digest()

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What the process says of the code.

        Raises:
            UserError: it cannot be imported, or it reads other data than those that are named.
        """
        try:
            about: dict[str, Any] = self.child.ask("describe")
        except (ChildRefused, ChildError) as error:
            way = "" if self.python else "; benchmark.python=PYTHON chooses an interpreter with what it needs"
            raise UserError(f"benchmark.path={self.place.given}: {error}{way}") from error
        if self.data_dir is not None and Path(about["data_dir"] or "/").resolve() != self.data_dir:
            raise UserError(
                f"benchmark.data_dir={self.data_dir}{self.origin}: the code of benchmark.path reads "
                f"{about['data_dir']} whatever is named; change the data there"
            )
        return about

    @property
    def domain_names(self) -> tuple[str, ...]:
        return super().domain_names if self.installed else tuple(self._about["domains"])

    def load_domain(
        self,
        name: str,
        data_dir: Path | str | None = None,
        path: Path | str | None = None,
        retrieval: str | None = None,
        retrieval_options: Mapping[str, Any] | None = None,
    ) -> Domain:
        if path is not None or (self.installed and name in super().domain_names):
            return super().load_domain(name, data_dir, path, retrieval, retrieval_options)
        if data_dir is not None:
            raise UserError(f"domain.{name}.data_dir: not with benchmark=custom, whose code reads its own data")
        if name not in self.domain_names:
            raise UserError(f"no domain {name!r} in benchmark.path={self.place.given}: {', '.join(self.domain_names)}")
        domain = _load(self, name, retrieval, json.dumps(retrieval_options or {}, sort_keys=True))
        domain.load()
        return domain

    def load_for_scoring(self, name: str, data_dir: Path | str | None = None, path: Path | str | None = None) -> Domain:
        from tau2_fleet.benchmark.custom.domain import SCORED_BY, takes_retrieval

        asked = path is None and not self.installed and name in self.domain_names
        looked_up = asked and takes_retrieval(self.child, name)
        return self.load_domain(name, data_dir, path, SCORED_BY if looked_up else None)

    def files_of(self, name: str) -> DomainFiles:
        """Where a domain's data lie, as far as they lie where the benchmark has them."""
        data_dir = Path(self._about["data_dir"] or self.place.package)
        folders = [data_dir / "tau2" / "domains" / base for base in (name, name.partition("-")[0])]
        return DomainFiles((next((folder for folder in folders if folder.is_dir()), folders[0]),))

    def user_guidelines(self, with_tools: bool) -> str:
        if self.installed:
            return super().user_guidelines(with_tools)
        text: str | None = self._about["guidelines"].get("with_tools" if with_tools else "without_tools")
        return super().user_guidelines(with_tools) if text is None else text

    def user_tools_of(self, task: Task, raw: Mapping[str, Any], schemas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return offered_user_tools(raw, schemas)

    def code(self) -> CodeIdentity:
        return CodeIdentity("tau2", self.place.version or "unknown", self.place.digest)

    def identity(self, domains: Iterable[IdentifiedDomain]) -> BenchmarkIdentity:
        chosen = list(domains)
        if self.installed:
            return super().identity(chosen)
        digests = {domain.name: _digest(dict(domain.digests)) for domain in chosen}
        guidelines = _digest([self.user_guidelines(with_tools) for with_tools in (False, True)])
        source = str(self.data_dir or self.place.root)
        data = DataIdentity(source, _digest([digests, guidelines]), digests, guidelines)
        return BenchmarkIdentity(self.name, self.rules.name, self.code(), data)


@cache
def _child(root: Path, python: str | None, data_dir: Path | None) -> Child:
    """One process for all runs of this one."""
    return Child(root, python, data_dir)


@cache
def _load(version: Version, name: str, retrieval: str | None, retrieval_options: str) -> CustomDomain:
    from tau2_fleet.benchmark.custom.domain import CustomDomain

    files, options = version.files_of(name), json.loads(retrieval_options)
    return CustomDomain(name, version, version.child, files, version.place.root, retrieval, options)


def _installed_package() -> Path:
    from tau2_fleet.benchmark.package import source

    return source("tau2").parent.resolve()


@cache
def _installed_digest() -> str:
    return place.code_digest(_installed_package())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
