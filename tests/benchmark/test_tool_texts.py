"""The text of a tool's result is the package's, whatever a tool gives back."""

from __future__ import annotations

import gc
import math
from collections import OrderedDict
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tau2_fleet.benchmark.tool_calls import result_text


class Seat(BaseModel):
    number: int
    price: float
    free: bool
    since: datetime


class Colour(StrEnum):
    RED = "red"


SEAT = Seat(number=7, price=1.5, free=True, since=datetime(2024, 5, 15, 15, tzinfo=UTC))

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.dates(),
    st.datetimes(),
    st.just(SEAT),
    st.just(Colour.RED),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)
    ),
)


def theirs(value: Any) -> str:
    from tau2.environment.environment import Environment

    text: str = Environment.to_json_str(value)
    return text


@given(values)
def test_any_value_has_the_packages_text(value: Any) -> None:
    assert result_text(value) == theirs(value)


@pytest.mark.parametrize(
    "value",
    [SEAT, [SEAT, {"seat": SEAT}], True, 0, -1.5, math.inf, "", "naïve", (1, (2,)), OrderedDict(a=1), date(2024, 1, 2)],
)
def test_known_kinds_have_the_packages_text(value: Any) -> None:
    assert result_text(value) == theirs(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, [b"bytes"], {"a": {3}}, 1j])
def test_what_the_package_refuses_is_refused_in_its_words(value: Any) -> None:
    with pytest.raises(ValueError, match="Unsupported type") as ours:
        result_text(value)
    with pytest.raises(ValueError, match="Unsupported type") as package:
        theirs(value)
    assert str(ours.value) == str(package.value)


def test_nothing_is_left_to_the_garbage_collector() -> None:
    result_text([SEAT])
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            result_text([SEAT, {"a": [1, 2.0, None]}])
        assert gc.collect() == 0
    finally:
        gc.enable()
