"""The keys `review.*`: how a model is asked for its reviews, and what that may cost."""

from __future__ import annotations

from dataclasses import dataclass

from tau2_fleet.key import COUNT, FROM_ZERO, POSITIVE, Range, Resume, key

_FREE = Resume.may_differ


@dataclass
class ReviewSettings:
    """How simulations are reviewed."""

    votes: int = key(3, help="answers of the model for each simulation; the majority counts", range=Range(1, 25))
    max_cost_usd: float = key(5.0, help="what all votes of a run may cost, earlier ones included", range=FROM_ZERO)
    max_in_flight: int = key(16, help="requests at once", range=COUNT, resume=_FREE)
    call_timeout_s: float = key(600.0, help="seconds that one vote may take", range=POSITIVE, resume=_FREE)
    seed: int = key(300, help="of the sample, and of the votes where the provider takes one", range=FROM_ZERO)
