"""τ²-bench Verified: the installed package's code and scoring, on the corrected tasks of a checkout's data."""

from __future__ import annotations

from tau2_fleet.benchmark.version import BenchmarkVersion


class Version(BenchmarkVersion):
    """Every domain's data come from the folder that is named."""

    name = "tau2-verified"
    scoring = "tau2-0.2"
    needs_data = None
