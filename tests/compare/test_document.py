"""Figures of a comparison as its tables show them."""

from __future__ import annotations

import pytest

from tau2_fleet.compare import document
from tau2_fleet.evaluation.paired import Interval


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.0, "0", "+0"),
        (1.0, "1", "+1"),
        (-12.346, "-12.35", "-12.3"),
        (999.4, "999.4", "+999"),
        (-1234.4, "-1,234", "-1,234"),
    ],
)
def test_a_figure_has_few_digits_and_a_large_one_none_behind_the_point(value: float, plain: str, signed: str) -> None:
    assert (document._number(value), document._signed(value)) == (plain, signed)


@pytest.mark.parametrize(
    ("p", "shown"), [(0.00009, "< 0.0001"), (0.0001, "0.0001"), (0.0099, "0.0099"), (0.01, "0.010")]
)
def test_a_small_p_has_more_digits(p: float, shown: str) -> None:
    assert document._p(p) == shown


def test_an_interval_is_in_points_and_names_are_cut_after_eight() -> None:
    assert document._of(Interval(-0.0123, 0.5), "[", "]") == "[-1.2, +50.0]"
    assert document._of(None, "[", "]") == ""
    assert document._some([*"abcdefgh"]) == "a, b, c, d, e, f, g, h"
    assert document._some([*"abcdefghij"]) == "a, b, c, d, e, f, g, h and 2 more"
