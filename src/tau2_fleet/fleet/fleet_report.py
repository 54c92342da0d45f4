"""What became of a job's servers, for the summary; a resumed run adds its attempts' reports up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tau2_fleet.fleet.replica import ReplicaStatus


@dataclass(frozen=True, slots=True)
class FleetReport:
    """One job's part in the life of a fleet."""

    replicas: tuple[ReplicaStatus, ...] = ()
    """As they were at the job's end; empty: it needed none."""
    restarts: int = 0
    sessions_moved: int = 0
    """How often a session was given another replica than before."""

    def added_to(self, saved: object) -> dict[str, Any]:
        """As the summary shows it: counts over all attempts, replicas of the last attempt that had any.

        Args:
            saved: the same of the attempts before, as their summary has it; what cannot be used of it is left out.
        """
        before = saved if isinstance(saved, dict) else {}
        return {
            "replicas": [asdict(replica) for replica in self.replicas] or _rows(before.get("replicas")),
            "restarts": self.restarts + _count(before.get("restarts")),
            "sessions_moved": self.sessions_moved + _count(before.get("sessions_moved")),
        }


def _rows(value: object) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict) and not any(isinstance(v, dict | list) for v in row.values())]


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**32 else 0
