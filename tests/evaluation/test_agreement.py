"""Kappa, precision and recall as their authors define them, and where there is nothing to say."""

from __future__ import annotations

import pytest

from tau2_fleet.evaluation.agreement import cohen_kappa, fleiss_kappa, trust


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    subjects = [[kind for kind, n in enumerate(row) for _ in range(n)] for row in counts]
    assert fleiss_kappa(subjects) == pytest.approx(0.210, abs=0.0005)


def test_cohen_kappa_of_fifty_with_thirty_five_alike() -> None:
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_where_all_say_the_same_word_there_is_no_chance_to_beat() -> None:
    assert fleiss_kappa([["a", "a"], ["a", "a"]]) is None
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([["a"]]) is None
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["a"], ["a"]) is None
    assert fleiss_kappa([["a", "b"], ["a", "a"], ["b", "b"], ["a"]]) == pytest.approx(1 / 3)


def test_only_what_is_labelled_counts() -> None:
    found = trust({1: True, 2: True, 3: False, 4: True}, {1: True, 2: False, 3: True, 9: True})
    assert found.labelled == 3
    assert found.precision is not None
    assert found.recall is not None
    assert (found.precision.value, found.recall.value) == (0.5, 0.5)
    assert trust({1: False}, {1: False}).precision is None
    assert trust({}, {1: True}).recall is None
