"""What all tests share: Ctrl-C as a terminal has it, and the sum of the differential suite at the end of a run."""

from __future__ import annotations

import signal
import sys
from typing import Any

# Shells start background jobs with SIGINT ignored, and children inherit that: tests would press Ctrl-C in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many trajectories were compared with the benchmark's own evaluator, and on how many both agree."""
    module = sys.modules.get("tests.benchmark.tally")
    for line in module.TALLY.lines() if module is not None else []:
        terminalreporter.write_line(line)
