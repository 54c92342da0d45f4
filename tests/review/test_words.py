"""Whether a text holds a value, and which values a customer has to give word by word."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_fleet.review.words import leaves, says


@pytest.mark.parametrize(
    ("text", "value", "held"),
    [
        ("My zip is 9 4 1 0 3.", "94103", True),
        ("Order #W-5918442, please", "W5918442", True),
        ("I have 12 bags", 12, True),
        ("I have 120 bags", 12, False),
        ("It is 1.12", 12, False),
        ("It is 12.5 kg", 12, False),
        ("Give me 12.", 12, True),
        ("Seat AB", "ab", True),
        ("The crab", "ab", False),
        ("", "ab", False),
    ],
)
def test_a_long_value_counts_wherever_it_stands_and_a_short_one_as_a_word(text: str, value: Any, held: bool) -> None:
    assert says(text, value) is held


def test_every_plain_value_of_a_call_has_the_name_it_stands_under() -> None:
    call = {"id": "W1", "gift": True, "note": None, "bags": [{"kg": 3}, {"kg": 4.5}], "tags": ["a", ["b"]]}
    assert [*leaves(call)] == [("id", "W1"), ("kg", 3), ("kg", 4.5), ("tags", "a"), ("tags", "b")]
