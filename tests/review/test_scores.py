"""The corrected score, its interval, and what it leaves out in each direction."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tau2_fleet.analysis.reviews import Effect, ErrorKind, Mark, Review, Severity, Verdict
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.scores import score


def review(task: int, trial: int, passed: bool, effect: Effect | None = None) -> Review:
    """One simulation, perhaps with an error of the customer's that did so."""
    key = SimulationKey("a", str(task), trial)
    if effect is None:
        return Review(key, float(passed), Verdict.nobody, ())
    mark = Mark(ErrorKind.early_stop, Severity.major, effect, "")
    return Review(key, float(passed), Verdict.customer, (mark,))


def test_each_direction_is_left_out_and_counted() -> None:
    found = score(
        [
            review(1, 0, True), review(1, 1, False, Effect.hindered), review(2, 0, True, Effect.helped),
            review(2, 1, False), review(3, 0, True, Effect.hindered), review(3, 1, True),
        ]
    )  # fmt: skip
    assert (found.left_out.hindered, found.left_out.helped, found.left_out.without_effect) == (1, 1, 1)
    assert found.raw.value == pytest.approx(4 / 6)
    assert found.corrected is not None
    assert found.upper_bound is not None
    assert found.corrected.value == pytest.approx(2 / 3)
    assert found.upper_bound.value == pytest.approx((1 + 0.5 + 1) / 3)


def test_without_errors_the_corrected_score_is_the_raw_one() -> None:
    found = score([review(task, trial, task % 3 > trial) for task in range(9) for trial in range(2)])
    assert found.corrected == found.raw == found.upper_bound


def test_where_nothing_is_left_there_is_no_score() -> None:
    found = score([review(1, 0, False, Effect.hindered)])
    assert found.corrected is None
    assert found.left_out.total == 1


def test_a_weighted_sample_of_all_has_the_share_of_all() -> None:
    luck = random.Random(3)
    whole = [review(task, 0, luck.random() < 0.7) for task in range(400)]
    passed = [one for one in whole if one.reward][:70]
    failed = [one for one in whole if not one.reward][:30]
    share = sum(one.reward for one in whole) / len(whole)
    sample = [dataclasses.replace(one, weight=share * 400 / 70) for one in passed]
    sample += [dataclasses.replace(one, weight=(1 - share) * 400 / 30) for one in failed]
    outside = [dataclasses.replace(one, weight=0.0) for one in whole if one not in passed and one not in failed]
    found = score([*sample, *outside])
    assert found.considered == 100
    assert found.corrected is not None
    assert found.corrected.low is not None
    assert found.corrected.high is not None
    assert found.corrected.value == pytest.approx(share)
    assert 0.15 < found.corrected.high - found.corrected.low < 0.25
