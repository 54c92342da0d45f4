"""The limit of open files, raised to what a run needs; called once before the fleet starts."""

from __future__ import annotations

import logging
import resource

from tau2_fleet.errors import UserError

log = logging.getLogger(__name__)

_BASE = 1024
_FEWEST = 40
"""Without which nothing can be run."""
_PER_SIMULATION = 8
"""Connections of one simulation to its roles' servers, with room for retries."""


def files_needed(simulations: int, replicas: int = 0) -> int:
    """Open files that so many simulations at once may need."""
    return _BASE + _PER_SIMULATION * simulations + 8 * replicas


def most_for_files(wanted: int) -> int:
    """So many simulations at once, or as many as the hard limit of open files has room for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (hard - min(_BASE, 2 * hard // 3)) // _PER_SIMULATION))


def refuse_too_few_files(simulations: int) -> None:
    """Refuse to play so many simulations at once where they cannot even have a connection each.

    Raises:
        UserError: with the number that could.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _FEWEST + simulations:
        return
    fewer = f", or set max_concurrency to {hard - _FEWEST} at most" if hard > _FEWEST else ""
    raise UserError(
        f"{_FEWEST + simulations} open files are the least for {simulations} simulations at once, and this process may "
        f"have {hard}: raise its hard limit (ulimit -Hn){fewer}"
    )


def raise_open_files(max_concurrency: int, replicas: int = 0) -> int:
    """Raise the soft limit of open files to what this many simulations at once need; the limit then in force.

    Servers started later inherit it. Warns when the hard limit is lower than the need.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = files_needed(max_concurrency, replicas)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= need:
        return soft
    # Servers answer as many connections as there are simulations: leave them room beyond our own need.
    wanted = max(need, 65536)
    raised = wanted if hard == unlimited else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):
        raised = soft
    if raised < need:
        log.warning(
            "%d simulations at once may need %d open files, the limit is %d: set max_concurrency or raise ulimit -Hn",
            max_concurrency, need, raised,
        )  # fmt: skip
    return raised
