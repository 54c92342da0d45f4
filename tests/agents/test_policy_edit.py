"""Edits of the agent's policy: what is taken out, what stands there instead, what stays."""

from __future__ import annotations

import pytest

from tau2_fleet.agents.policy_edit import OWN_PARAGRAPH, edit_policy
from tau2_fleet.benchmark.domains import load_domain

POLICY = """Be kind.

You should transfer the user to a human agent if you cannot help.
Say YOU ARE BEING TRANSFERRED TO A HUMAN AGENT.
Refund at once."""


def test_the_own_paragraph_stands_once_in_place_of_what_speaks_of_human_agents_and_the_rest_stays() -> None:
    assert edit_policy(POLICY, "own").split("\n") == ["Be kind.", "", OWN_PARAGRAPH, "Refund at once."]
    assert edit_policy(POLICY, "off") == POLICY


@pytest.mark.parametrize("name", ["retail", "airline", "telecom"])
def test_no_policy_of_the_benchmark_speaks_of_a_transfer_to_people_afterwards(name: str) -> None:
    policy = load_domain(name).policy
    edited = edit_policy(policy, "own").split("\n")
    assert edited.count(OWN_PARAGRAPH) == 1
    kept = [line for line in policy.split("\n") if "human" not in line.lower() or "transfer" not in line.lower()]
    assert [line for line in edited if line != OWN_PARAGRAPH] == kept
