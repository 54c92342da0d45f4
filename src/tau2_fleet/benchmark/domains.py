"""The benchmark's domains by their names: `load_domain` is the way in, for `run` and the tools.

Each is made, and everything it reads is read, once per process.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tau2_fleet.benchmark.data import DomainFiles, domain_folder, missing_data
from tau2_fleet.benchmark.local_domain import LocalDomain, base_name
from tau2_fleet.benchmark.package import DATA_DIR
from tau2_fleet.benchmark.task_sets import meant_name
from tau2_fleet.benchmark.version_traits import VersionTraits
from tau2_fleet.errors import UserError

DOMAINS = ("mock", "retail", "airline", "telecom", "telecom-workflow")

_WITHOUT_TASKS = (
    "bank", "basketball", "ecommerce", "medicine", "movie", "railway", "restaurant", "school", "travel", "weather",
)  # fmt: skip
"""Domains of the scripts that this program replaces, for which nobody has published tasks."""

_DATA_FOLDER = Path("tau2", "domains")


def load_domain(
    name: str,
    data_dir: Path | str | None = None,
    path: Path | str | None = None,
    *,
    version: VersionTraits | None = None,
) -> LocalDomain:
    """A domain, once per process.

    Args:
        name: one of `DOMAINS`, or any other with `path`.
        data_dir: (else the version's, which is by default the environment variable TAU2_DATA_DIR, else the package's
            own data) a folder that holds `tau2/domains/<name>`, or is itself such a domain's folder.
        path: the folder of a domain of one's own, as `own_domain` describes it.
        version: of the benchmark; None: the installed package as it is.

    Raises:
        UserError: there is no such domain, or no data for it in that folder.
    """
    if path is not None:
        if name in DOMAINS:
            raise UserError(f"domain.{name}.path: {name} is a domain of the benchmark; give yours a name of its own")
        return _load_own_domain(name, Path(path).expanduser().resolve())
    if name not in DOMAINS:
        if name in _WITHOUT_TASKS:
            raise UserError(
                f"domain {name}: the benchmark's package has no tasks for it; domains are {', '.join(DOMAINS)}"
            )
        if name == "banking_knowledge":
            raise UserError(
                f"domain {name}: the installed package does not have it; name a checkout of tau2 1.0 or later with "
                "benchmark=custom benchmark.path=PATH"
            )
        raise UserError(f"no domain {name!r}{meant_name(name, DOMAINS)}; domains are {', '.join(DOMAINS)}")
    version = version or VersionTraits()
    given = None if data_dir is None else Path(data_dir).expanduser().resolve()
    return _load_domain(name, _files(name, given, version), version)


@cache
def _load_domain(name: str, files: DomainFiles, version: VersionTraits) -> LocalDomain:
    own = files.folders[0] if files.like is not None else None
    return LocalDomain(name, files, version, own)


@cache
def _load_own_domain(name: str, folder: Path) -> LocalDomain:
    from tau2_fleet.benchmark.own_domain import OwnDomain

    return OwnDomain(name, folder)


def _files(name: str, given: Path | None, version: VersionTraits) -> DomainFiles:
    """Where the files of a domain lie.

    Raises:
        UserError: the folder that was named has none of it.
    """
    base = base_name(name)
    packaged = Path(DATA_DIR) / _DATA_FOLDER / base
    if given is None:
        version.refuse_missing_data(name, base)
    data_dir, origin = (given, "") if given is not None else (version.data_dir, version.origin)
    if data_dir is None:
        return DomainFiles((packaged,))
    folder = domain_folder(data_dir, base)
    if folder is not None:
        return DomainFiles((folder, packaged) if version.falls_back else (folder,), like=packaged)
    if version.falls_back and version.needs_data is not None and base not in version.needs_data:
        return DomainFiles((packaged,))
    raise missing_data(name, data_dir, origin, base)
