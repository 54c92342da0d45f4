"""How closely servers are watched; the supervisor's numbers, other ones in tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Times in seconds."""

    process_s: float = 0.5
    """Between looks at a replica's process."""
    health_s: float = 5.0
    """Between looks at its /health."""
    health_timeout_s: float = 10.0
    recheck_s: float = 1.0
    """Between looks at a replica that did not answer."""
    hang_after: int = 3
    """Unanswered looks after which it counts as hanging and is restarted."""
    start_poll_s: float = 0.25
    """Between looks at one that is starting."""
    backoff_s: float = 1.0
    """Before the first restart; doubles with each further one."""
    backoff_max_s: float = 60.0
    max_attempts: int = 6
    """Starts in a row before a replica is given up."""
    forgiven_after_s: float = 60.0
    """Being well for so long makes earlier failures forgotten,"""
    forgiven_after_answers: int = 50
    """and so does having answered so many requests since the last start: what crashes now and then is worth it."""
    most_stalls: int = 2
    """Stalls in a row, with nothing answered between, after which a replica is given up."""
    grace_s: float = 4.0
    """Between SIGTERM and SIGKILL."""
    external_patience_s: float = 60.0
    """How long a server that we did not start may be away before requests to it stop waiting."""
