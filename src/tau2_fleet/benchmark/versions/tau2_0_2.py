"""τ²-bench 0.2: the installed package's code and data, as they are."""

from __future__ import annotations

from tau2_fleet.benchmark.version import BenchmarkVersion


class Version(BenchmarkVersion):
    """The plain default."""

    name = "tau2-0.2"
