"""The simulations of a run, as signals stop them; `execution.py` puts them in charge of its interrupts."""

from __future__ import annotations

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.runner import Runner
from tau2_fleet.display.console import err
from tau2_fleet.display.progress import Progress


class RunningSimulations:
    """What is stopped first, and what ends where that takes too long."""

    def __init__(self, runner: Runner, progress: Progress) -> None:
        self._runner = runner
        self._progress = progress

    @property
    def over(self) -> bool:
        return self._runner.over

    def stop(self) -> None:
        grace_s = self._runner.limits.grace_s
        self._progress.counters.stopping = True
        err.print(f"[yellow]stopping[/]: simulations in flight have {grace_s:g} s; Ctrl-C again ends at once")
        self._runner.stop(RunEnd.INTERRUPTED)

    def abort(self) -> None:
        self._runner.abort()
