"""Versions of the benchmark, each with its domains; `find_version` gives one by name.

`run.plan` asks for the version of a run, `rescore` for those that it scores under. A further one is a module in
`benchmark/versions/` with a class `Version`, and a file in `conf/benchmark/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import DOMAINS, load_domain
from tau2_fleet.benchmark.named import named_part
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.benchmark.version_traits import GUIDELINE_FILES as GUIDELINE_FILES
from tau2_fleet.benchmark.version_traits import VersionTraits
from tau2_fleet.benchmark.version_traits import offered_user_tools as offered_user_tools
from tau2_fleet.errors import UserError

FOLDER = "tau2_fleet.benchmark.versions"


class BenchmarkVersion(VersionTraits):
    """One version of the benchmark; its domains are the installed package's, played as its traits say."""

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Its domains."""
        return DOMAINS

    def load_domain(
        self,
        name: str,
        data_dir: Path | str | None = None,
        path: Path | str | None = None,
        retrieval: str | None = None,
        retrieval_options: Mapping[str, Any] | None = None,
    ) -> Domain:
        """A domain of this version, once per process; see `benchmark.domains.load_domain`.

        Args:
            retrieval: for a domain whose agent looks things up, how it does, and the options of that.

        Raises:
            UserError: there is no such domain, or no data for it.
        """
        if retrieval is not None or retrieval_options:
            raise UserError(f"domain.{name}.retrieval: nothing is looked up in {name}; it is for banking_knowledge")
        return load_domain(name, data_dir, path, version=self)

    def load_for_scoring(self, name: str, data_dir: Path | str | None = None, path: Path | str | None = None) -> Domain:
        """The same for scoring what was run already, which no agent plays.

        Raises:
            UserError: as `load_domain`.
        """
        return self.load_domain(name, data_dir, path)


def find_version(settings: BenchmarkSettings | None = None) -> BenchmarkVersion:
    """The version that these settings name; the installed package's where they name none.

    Raises:
        UserError: there is none of this name, or its settings cannot be.
    """
    settings = settings or BenchmarkSettings()
    kind: type[Any] = named_part(settings.name, "benchmark", FOLDER, "Version", type)
    version = kind(settings)
    if not isinstance(version, BenchmarkVersion):
        raise UserError(f"benchmark={settings.name}: {kind.__name__} is no BenchmarkVersion")
    return version
