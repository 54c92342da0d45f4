"""What `conf/benchmark` says: which benchmark is run, on which data, scored how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tau2_fleet.key import Resume, key

DEFAULT = "tau2-0.2"
"""The installed package as it is."""


@dataclass
class BenchmarkSettings:
    """The version of the benchmark that a run is a run of."""

    name: str = key(DEFAULT, help="which benchmark; files of benchmark/ name those that there are", added=True)
    data_dir: Optional[str] = key(
        None,
        help="a checkout's data/ of the benchmark: its tasks, databases, policies, users' guidelines",
        path=True,
        shown="TAU2_DATA_DIR, else the installed package's",
        resume=Resume.may_differ,
    )
    path: Optional[str] = key(
        None,
        help="with benchmark=custom: a checkout or wheel of tau2, of any version or fork",
        path=True,
        resume=Resume.may_differ,
    )
    python: Optional[str] = key(
        None,
        help="with benchmark=custom: the interpreter that runs its code; null: the one that runs this",
        path=True,
        resume=Resume.may_differ,
    )
    scoring: Optional[str] = key(
        None, help="by which version's rules rewards are made; null: the benchmark's own", added=True
    )
