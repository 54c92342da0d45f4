"""Finds the domain of a record or a results file again: the benchmark's, or one of the run's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domains import Domain

_SAVED = Path(".hydra", "config.yaml")


def domain_of_run(name: str, directory: Path, data_dir: Path | None = None) -> Domain:
    """A domain by its name.

    Args:
        directory: of the run, whose configuration says where a domain of one's own lies.
        data_dir: other data of the benchmark's form, or the folder of such a domain.

    Raises:
        UserError: it is not there.
    """
    from tau2_fleet.benchmark.domains import DOMAINS, load_domain

    if name in DOMAINS:
        return load_domain(name, data_dir)
    path = data_dir or own_domains(directory).get(name)
    if path is None:
        try:
            return load_domain(name)
        except UserError as error:
            raise UserError(f"{error}; where a domain of your own lies is said with --data-dir") from error
    return load_domain(name, path=path)


def own_domains(directory: Path) -> dict[str, str]:
    """Name to folder of the domains of its own that a run had; empty where its configuration cannot be read."""
    try:
        saved = yaml.safe_load((directory / _SAVED).read_text(encoding="utf-8"))
        return {name: str(about["path"]) for name, about in saved["domain"].items() if about.get("path")}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}
