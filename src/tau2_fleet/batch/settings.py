"""What the configuration says of many simulations at once; standard library only, because `--help` imports it."""

from __future__ import annotations

from enum import StrEnum

AUTO = "auto"
"""`max_concurrency`: as many simulations in flight as the servers can hold."""
MOST_IN_FLIGHT = 4096
"""Simulations in flight at most where nobody gives a number; one process can do with some more."""
PAID_IN_FLIGHT = 10
"""Requests in flight at a paid provider with `max_concurrency=auto`, until its key is set."""


class Order(StrEnum):
    """In which order simulations begin."""

    longest = "longest"
    """Those first that are expected to take longest."""
    as_listed = "as_listed"
    """As the tasks are listed, the domains side by side."""
