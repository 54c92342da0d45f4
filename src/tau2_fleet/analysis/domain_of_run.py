"""Finds the domain of a record or a results file again: the benchmark's, or one of the run's own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.record.reading import read_config

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domain import Domain
    from tau2_fleet.benchmark.settings import BenchmarkSettings
    from tau2_fleet.benchmark.version import BenchmarkVersion


def domain_of_run(
    name: str, directory: Path, data_dir: Path | None = None, version: BenchmarkVersion | None = None
) -> Domain:
    """A domain by its name.

    Args:
        directory: of the run, whose configuration says of which benchmark it is, and where a domain of one's own lies.
        data_dir: other data of the benchmark's form, or the folder of such a domain.
        version: of the benchmark; None: the run's.

    Raises:
        UserError: it is not there.
    """
    from tau2_fleet.benchmark.domains import DOMAINS
    from tau2_fleet.benchmark.version import find_version

    looked_up = _looked_up(directory, name) if version is None else None
    version = version or find_version(_benchmark(directory))
    path = None
    if name not in DOMAINS:
        own = own_domains(directory).get(name)
        # A folder that is named is the domain's own, where the benchmark is one that does not have the domain.
        path = data_dir if version.name != "custom" else None
        path, data_dir = path or (None if own is None else Path(own)), None
    try:
        if looked_up is not None:
            return version.load_domain(name, data_dir, path, *looked_up)
        return version.load_for_scoring(name, data_dir, path)
    except UserError as error:
        if name in DOMAINS or path is not None or version.name == "custom":
            raise
        raise UserError(f"{error}; --data-dir says where your own lies, --as NAME reads it as another") from error


def own_domains(directory: Path) -> dict[str, str]:
    """Name to folder of the domains of its own that a run had; empty where its configuration cannot be read."""
    try:
        return {
            name: str(about["path"]) for name, about in read_config(directory)["domain"].items() if about.get("path")
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def _looked_up(directory: Path, name: str) -> tuple[str, dict[str, Any]] | None:
    """How the agent of a run looked things up in this domain, and the options of that; None: it did not."""
    try:
        about = read_config(directory)["domain"][name]
        return (about["retrieval"], about.get("retrieval_options") or {}) if about.get("retrieval") else None
    except (KeyError, TypeError, AttributeError):
        return None


def _benchmark(directory: Path) -> BenchmarkSettings:
    """What a run's configuration says of its benchmark: the default where it says nothing."""
    from tau2_fleet.benchmark.settings import BenchmarkSettings

    said = read_config(directory).get("benchmark")
    known = {field.name for field in fields(BenchmarkSettings)}
    kept = {name: value for name, value in said.items() if name in known} if isinstance(said, dict) else {}
    for name, value in kept.items():
        if not (isinstance(value, str) or (value is None and name != "name")):
            raise UserError(f"{directory}/.hydra/config.yaml is damaged: benchmark.{name} is {value!r:.80}, no text")
    if not str(kept.get("data_dir", "")).startswith("/"):
        kept.pop("data_dir", None)  # a reference to a variable, which is read again
    return BenchmarkSettings(**kept)
