"""Edits of the agent's policy: what is taken out, what stands there instead, what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tau2_fleet.agents.policy_edit import OWN_PARAGRAPH, edit_policy
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError

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


def test_a_file_of_replacements_is_applied_in_its_order_and_its_texts_are_plain(tmp_path: Path) -> None:
    path = tmp_path / "edit.yaml"
    path.write_text('replacements:\n- {pattern: "^Be .*$", text: "Be \\\\1 brief."}\n- {pattern: brief, text: 5}\n')
    assert edit_policy(POLICY, str(path)) == POLICY.replace("Be kind.", "Be \\1 5.")
    with pytest.raises(UserError, match=r"none: no such file; give `off`, `own` or a YAML file of replacements$"):
        edit_policy(POLICY, str(tmp_path / "none"))
    for odd in (
        "[]",
        "replacements: 3",
        "replacements: [{pattern: x}]",
        "replacements: [{pattern: '(', text: x}]",
        "a: [",
    ):
        path.write_text(odd)
        with pytest.raises(UserError, match=r"wanted `replacements:` with a list of `pattern` and `text`"):
            edit_policy(POLICY, str(path))
