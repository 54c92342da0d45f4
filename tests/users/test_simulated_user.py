from __future__ import annotations

import pytest

from tau2_fleet.users.simulated_user import speaks_as_agent


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("How can I help you today?", True),
        ("Is there anything else I can assist you with?", True),
        ("I am happy to help you.", True),
        ("Can you help me with my order?", False),
        ("", False),
        (None, False),
    ],
)
def test_a_customer_who_sounds_like_the_agent_is_counted(text: str | None, counted: bool) -> None:
    assert speaks_as_agent(text) is counted
