"""How one job of a command line ended, whichever process it ran in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.errors import ExitStatus


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How one job ended."""

    run_dir: Path
    overrides: list[str]
    exit_status: int
    error: str | None = None
    """In one line, why it did not run, or not to its end."""
    results: Mapping[str, Any] | None = None
    """The part of the job's `summary.json` that is about results; None: it has none."""
    ends_sweep: bool = False
    """Whether no further job is to begin, as `ctl drain` asked."""

    @property
    def objective(self) -> float | None:
        """The headline reward of a job that is complete, for whoever searches for the best one; None: there is none."""
        if self.exit_status != ExitStatus.FINISHED:
            return None
        reward = overall_of(self.results, "metrics").get("average_reward")
        return float(reward["value"]) if isinstance(reward, Mapping) else None


def overall_of(results: Mapping[str, Any] | None, part: str) -> Mapping[str, Any]:
    """A part of a job's results over all its domains; empty: there is none."""
    found = ((results or {}).get(part) or {}).get("overall")
    return found if isinstance(found, Mapping) else {}
