from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.users.simulated_user import SimulatedUser, speaks_as_agent
from tests.simulation.scenes import Lines, reply, simulate


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


def test_the_customer_remembers_both_sides_and_its_turns_cost_what_they_cost() -> None:
    user = Lines(reply("My task, please.", cost=0.25), reply("Thanks. ###STOP###", cost=0.5))
    record = simulate(Lines(reply("Which one?")), user)
    said = [(message["role"], message["content"]) for message in user.texts[1] if message["role"] != "system"]
    assert said[-2:] == [("assistant", "My task, please."), ("user", "Which one?")]
    assert len(said) == 3, "the greeting, and nothing twice"
    assert [message["cost"] for message in record.messages if message["role"] == "user"] == [0.25, 0.5]


class Blunt(SimulatedUser):
    """A customer of one's own."""


@pytest.mark.parametrize(("kind", "name"), [(SimulatedUser, "user_simulator"), (Blunt, "Blunt")])
def test_results_call_a_customer_as_the_package_does_and_one_of_ones_own_by_its_class(
    kind: type[SimulatedUser], name: str
) -> None:
    context: Any = SimpleNamespace(model=SimpleNamespace(history=[]), history=["said before"])
    user = kind(context)
    assert user.name == name
    assert [*map(str, user.history)] == ["said before"]
    assert user.model.history is not context.history


def test_calls_of_the_customers_own_tools_are_part_of_its_turn() -> None:
    call = ("toggle_data", '{"on": true}')
    asked = iter([reply(None, call), reply("It is on.")])

    async def ask() -> Any:
        return next(asked)

    user = SimulatedUser(SimpleNamespace(model=SimpleNamespace(history=[], ask=ask), history=[]))  # type: ignore[arg-type]

    async def turns() -> list[Any]:
        return [await user.speak(), await user.speak()]

    acts, talks = asyncio.run(turns())
    assert [(call.name, call.arguments, call.requestor) for call in acts.tool_calls] == [
        ("toggle_data", {"on": True}, "user")
    ]
    assert (acts.content, talks.content, talks.tool_calls) == (None, "It is on.", None)
    assert len(user.history) == 2
