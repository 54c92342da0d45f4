"""The raw score of a run, and the score without the simulations in which the customer erred: pure functions.

A simulation is left out for the error, whatever its outcome. Where the customer's errors fall on good and bad agents
alike, what is left is a fair sample of the agent's attempts; leaving out failures alone would flatter it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tau2_fleet.analysis.reviews import Effect, Review, Verdict
from tau2_fleet.evaluation.proportions import Estimate, effective_size, mean_of_tasks, wilson
from tau2_fleet.evaluation.success import is_success


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many simulations the corrected score is without, by what the customer's error did."""

    hindered: int = 0
    """Failed, and an error hindered the agent."""
    helped: int = 0
    """Passed, and an error helped the agent."""
    without_effect: int = 0
    """The others: it hindered and they passed all the same, or it helped and they failed."""

    @property
    def total(self) -> int:
        return self.hindered + self.helped + self.without_effect


@dataclass(frozen=True, slots=True)
class Score:
    """pass^1 of some simulations, raw and corrected."""

    simulations: int
    raw: Estimate
    corrected: Estimate | None
    """None where nothing is left."""
    upper_bound: Estimate | None
    """Without the failures alone that the customer brought about."""
    left_out: LeftOut
    considered: int
    """Simulations that the corrected score stands on, and those that it is without."""
    undecided: int
    """Of those: kept as they are, because the reviewer gave no verdict."""
    verdicts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def score(reviews: Sequence[Review], *, only_failures: bool = False) -> Score:
    """The scores of some simulations, at least one.

    Args:
        only_failures: none but failures were reviewed, so that there is an upper bound alone.
    """
    considered = [one for one in reviews if one.weight > 0]
    sampled = any(one.weight != 1.0 for one in reviews)
    estimate = _of_sample if sampled else _of_all
    kept = [one for one in considered if not one.left_out]
    milder = [one for one in considered if not (one.left_out and not _passed(one))]
    return Score(
        simulations=len(reviews),
        raw=_of_all(reviews),
        corrected=None if only_failures or not kept else estimate(kept),
        upper_bound=estimate(milder) if milder else None,
        left_out=left_out(considered),
        considered=len(considered),
        undecided=sum(one.verdict is Verdict.undecided for one in considered),
        verdicts=dict(Counter(str(one.verdict) for one in considered).most_common()),
    )


def scores(reviews: Iterable[Review], *, only_failures: bool = False) -> dict[str, Score]:
    """By domain, and `overall`."""
    by_domain: dict[str, list[Review]] = {}
    for one in reviews:
        by_domain.setdefault(one.key.domain, []).append(one)
    found = {name: score(part, only_failures=only_failures) for name, part in by_domain.items()}
    everything = [one for part in by_domain.values() for one in part]
    return {**found, "overall": score(everything, only_failures=only_failures)} if everything else {}


def left_out(reviews: Iterable[Review]) -> LeftOut:
    """What is left out of these, in each direction."""
    counts: Counter[str] = Counter()
    for one in reviews:
        if not one.left_out:
            continue
        effects = {mark.effect for mark in one.marks if mark.decides}
        if _passed(one) and Effect.helped in effects:
            counts["helped"] += 1
        elif not _passed(one) and Effect.hindered in effects:
            counts["hindered"] += 1
        else:
            counts["without_effect"] += 1
    return LeftOut(**counts)


def _passed(review: Review) -> bool:
    return is_success(review.reward)


def _of_all(reviews: Sequence[Review]) -> Estimate:
    """Mean over tasks, each with the share of its simulations that passed."""
    tasks: dict[tuple[str, str], list[bool]] = {}
    for one in reviews:
        tasks.setdefault(one.key[:2], []).append(_passed(one))
    return mean_of_tasks([sum(trials) / len(trials) for trials in tasks.values()], len(reviews))


def _of_sample(reviews: Sequence[Review]) -> Estimate:
    """The weighted share, a ratio of two sums over tasks; its variance is that of the ratio, linearised.

    See Cochran 1977, Sampling Techniques, 6.4; a stratified sample's is smaller, so that the interval errs on the wide
    side. It is Wilson's, with the sample's effective size.
    """
    total = sum(one.weight for one in reviews)
    share = sum(one.weight * _passed(one) for one in reviews) / total
    tasks: dict[tuple[str, str], float] = {}
    for one in reviews:
        tasks[one.key[:2]] = tasks.get(one.key[:2], 0.0) + one.weight * (_passed(one) - share)
    count = len(tasks)
    if count < 2:
        return Estimate(share)
    variance = sum(part * part for part in tasks.values()) * count / (count - 1) / total**2
    return Estimate(share, *wilson(share, effective_size(share, variance, len(reviews), count)))
