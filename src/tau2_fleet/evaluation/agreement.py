"""How far verdicts can be trusted: kappa of several votes, precision and recall against labels. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tau2_fleet.evaluation.proportions import Estimate, wilson

K = TypeVar("K", bound=Hashable)


def fleiss_kappa(subjects: Sequence[Sequence[Hashable]]) -> float | None:
    """Agreement of equally many votes on each subject beyond chance, at most 1 (Fleiss 1971, Psych. Bull. 76:378).

    Subjects with another number of votes than most have are left out. None where that leaves fewer than two votes or
    no subject, or where all votes are the same word, so that there is no chance to beat.
    """
    counts = Counter(map(len, subjects))
    votes = counts.most_common(1)[0][0] if counts else 0
    rated = [Counter(subject) for subject in subjects if len(subject) == votes]
    if votes < 2 or not rated:
        return None
    agreed = [(sum(n * n for n in one.values()) - votes) / (votes * (votes - 1)) for one in rated]
    totals: Counter[Hashable] = sum(rated, Counter())
    chance = sum((n / (len(rated) * votes)) ** 2 for n in totals.values())
    return None if chance >= 1.0 else (sum(agreed) / len(agreed) - chance) / (1 - chance)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance, each with its own habits (Cohen 1960, Educ. Psych. Meas. 20:37).

    None where there is nothing, or both always say the same one word.
    """
    if not first:
        return None
    agreed = sum(one == two for one, two in zip(first, second, strict=True)) / len(first)
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[word] * theirs[word] for word in ours) / len(first) ** 2
    return None if chance >= 1.0 else (agreed - chance) / (1 - chance)


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdicts against labels, for one yes-or-no question."""

    labelled: int
    precision: Estimate | None
    """Of those that were found, the share that is labelled so; None where none was found."""
    recall: Estimate | None
    """Of those that are labelled so, the share that was found; None where none is."""
    kappa: float | None


def trust(found: Mapping[K, bool], labels: Mapping[K, bool]) -> Trust:
    """How verdicts stand against labels, on what has both."""
    both = [key for key in labels if key in found]
    right = sum(found[key] and labels[key] for key in both)
    return Trust(
        labelled=len(both),
        precision=_share(right, sum(found[key] for key in both)),
        recall=_share(right, sum(labels[key] for key in both)),
        kappa=cohen_kappa([found[key] for key in both], [labels[key] for key in both]),
    )


def _share(part: int, whole: int) -> Estimate | None:
    return Estimate(part / whole, *wilson(part / whole, whole)) if whole else None
