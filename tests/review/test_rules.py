"""Faults that a script puts into conversations are found as what they are; where none is, none is found."""

from __future__ import annotations

import asyncio
import copy
import random
from typing import Any

import pytest

from benchmarks.played import FAULTS, Place, Turn, play, script_of
from benchmarks.reviewing import case_of
from tau2_fleet.analysis.reviews import Effect, ErrorKind, Severity, Verdict
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.review.case import Case
from tau2_fleet.review.reachability import lost_at
from tau2_fleet.review.rules import marks_by_rules, review_by_rules
from tau2_fleet.review.words import awaits, identifiers
from tests.review.runs import record

TASKS = {"retail": 8, "airline": 12, "telecom": 4}


def cases(kind: str | None) -> list[Case]:
    """Conversations with one fault each, of the first tasks that have room for it and whose reward it costs."""
    found = []
    for name, limit in TASKS.items():
        domain = load_domain(name)
        for task in domain.tasks(limit=limit):
            script = script_of(task)
            if kind is not None:
                changed = FAULTS[kind](Place(domain, task, script, random.Random(f"{task.id}{kind}")))
                if changed is None:
                    continue
                script = changed
            played = asyncio.run(play(domain, task, script))
            if kind in (None, "agents_work", "wrong_value") or played["reward"] < 1:
                found.append(case_of(domain, task, played))
    return found


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_where_it_was_put_and_is_whose_it_is(kind: str) -> None:
    found = cases(kind)
    assert len(found) >= 3
    missed = [case.key for case in found if kind not in {mark.kind for mark in marks_by_rules(case)}]
    assert len(missed) <= len(found) // 10, missed
    for case in found:
        review = review_by_rules(case)
        if ErrorKind(kind).party == "agent":
            assert review.verdict is Verdict.agent
        elif kind != "wrong_value":
            assert review.verdict is (Verdict.nobody if case.key in missed else Verdict.customer)


def test_nothing_is_found_where_nothing_was_put() -> None:
    assert [mark for case in cases(None) for mark in marks_by_rules(case)] == []


def case(messages: list[dict[str, Any]], **more: Any) -> Case:
    """A conversation that failed, of a task whose customer wants one order cancelled."""
    action = {"name": "cancel_pending_order", "arguments": {"order_id": "#W1234567", "reason": "no longer needed"}}
    check = {"action": {**action, "requestor": "assistant"}, "action_match": False}
    info = {"action_checks": [check], "reward_basis": ["DB"]}
    scenario = {"known_info": "You are Ana Ruiz in zip 19122. Your order is #W1234567."}
    return Case(
        {"domain": "retail", "task_id": "x", "trial": 0, "reward": 0.0, "termination_reason": "user_stop",
         "sub_rewards": {"DB": 0.0}, "reward_info": info, "messages": messages, **more},
        {"user_scenario": {"instructions": scenario}},
        frozenset({"cancel_pending_order", "get_order_details"}),
        frozenset(),
    )  # fmt: skip


def said(*texts: str) -> list[dict[str, Any]]:
    """Agent and customer in turn, the agent first."""
    return [{"role": "user" if n % 2 else "assistant", "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("Hi!", "I want to cancel.", "Which order is it?", "I need to go. ###STOP###"), "early_stop"),
        (("Hi!", "Bye ###STOP###"), "early_stop"),
        (("Hi!", "Cancel it.", "It is done. Anything else I can help with?", "No. ###STOP###"), None),
        (("Hi!", "Cancel it.", "I cannot do that, it is against policy.", "I see. ###STOP###"), None),
        (
            ("Hi!", "Cancel.", "I will cancel #W1234567. Do you confirm?", "No, leave it.", "Fine.", "###STOP###"),
            "refused_confirmation",
        ),
        (
            ("Hi!", "Cancel.", "I will cancel #W9999999. Do you confirm?", "No, leave it.", "Fine.", "###STOP###"),
            None,
        ),
        (
            ("Hi!", "Cancel.", "Your order id, please?", "I don't have it.", "Then I cannot.", "Pity. ###STOP###"),
            "forgotten_fact",
        ),
        (("Hi!", "Cancel.", "I am sorry, that is not possible.", "Pity. ###STOP###"), None),
        (("Hi!", "My zip is 19125.", "I do not find you.", "Pity. ###STOP###"), "wrong_value"),
        (("Hi!", "My zip is 19122, order W1234567.", "I do not find you.", "Pity. ###STOP###"), None),
        (("Hi!", "Thank you for contacting us. How can I help you?", "Well.", "###STOP###"), "agents_work"),
        *(
            (("Hi!", "Cancel.", f"#W1234567: {asked}", answer, "Fine.", "###STOP###"), "refused_confirmation")
            for asked, answer in (
                ("shall I cancel it?", "Nope."), ("is that okay?", "I'd prefer that you didn't."),
                ("do I have your permission?", "Absolutely not, I never asked for this."),
                ("would you like me to cancel?", "Hold off on that please."),
                ("do you agree?", "That's not what I want."),
                ("may I go ahead?", "I am not okay with this."), ("please confirm.", "Please leave that one alone."),
            )
        ),
        *(
            (("Hi!", "Cancel.", "Order #W1234567: shall I cancel it?", answer, "Fine.", "Not now. ###STOP###"), None)
            for answer in (
                "No problem, go ahead.", "I don't mind, do it.", "No, I'd like to exchange it.", "Is there no fee?",
                "I don't know.", "Not a problem, that's fine.", "Wait, I want to change the address first.",
            )
        ),
        *(
            (("Hi!", text, "I am sorry, no.", "I see. ###STOP###"), "agents_work")
            for text in (
                "I can certainly help you with that!", "Sure, I'd be happy to assist. What is your order number?",
                "I will now process the cancellation for you.", "Your request has been submitted.",
                "You will receive a confirmation shortly.", "I've updated the system.",
                "I went ahead and cancelled it.",
                '<tool_call>{"name": "x"}</tool_call>', "How would you like to be refunded?",
            )
        ),
        *(
            (("Hi!", text, "I am sorry, no.", "I see. ###STOP###"), None)
            for text in (
                "I will receive a refund, right?", "Would you be happy to help me?", "Let me check the order number.",
                "I have updated my app already.", "Is my order confirmed?", "I will cancel my account then.",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_the_customers_error_and_what_is_not(texts: tuple[str, ...], kind: str | None) -> None:
    found = {str(mark.kind) for mark in marks_by_rules(case(said(*texts))) if mark.party == "customer"}
    assert found == ({kind} if kind else set())


def test_what_came_of_the_customers_error_is_not_the_agents() -> None:
    early = case(said("Hi!", "I want to cancel.", "Which order is it?", "I need to go. ###STOP###"))
    assert [str(mark.kind) for mark in marks_by_rules(early)] == ["early_stop"]
    patient = case(said("Hi!", "Cancel it.", "I am sorry, no.", "I see. ###STOP###"))
    assert [str(mark.kind) for mark in marks_by_rules(patient)] == ["skipped_step"]


def test_a_needed_tool_that_was_not_offered_is_the_setups() -> None:
    lacking = case(said("Hi!", "Cancel it.", "I am sorry, no.", "I see. ###STOP###"))
    lacking.agent_tools = frozenset({"get_order_details"})
    review = review_by_rules(lacking)
    assert (review.verdict, [str(mark.kind) for mark in review.marks]) == (Verdict.setup, ["tool_missing"])


def test_an_error_that_a_pass_outlived_leaves_nothing_out() -> None:
    passed = case(said("Hi!", "My zip is 19125.", "Done.", "Thanks ###STOP###"), reward=1.0)
    [mark] = marks_by_rules(passed)
    assert (mark.kind, mark.severity, mark.effect) == (ErrorKind.wrong_value, Severity.minor, Effect.none)
    assert review_by_rules(passed).verdict is Verdict.nobody


def test_nothing_is_said_of_a_conversation_that_the_infrastructure_ended() -> None:
    ended = case(said("Hi!", "Bye ###STOP###"), termination_reason="infrastructure_error")
    assert marks_by_rules(ended) == []


def test_rules_are_pure_and_bear_what_records_lack() -> None:
    played = record("0", "early_stop")
    before = copy.deepcopy(played)
    assert marks_by_rules(Case(played))
    assert played == before
    bare = {"domain": "a", "task_id": "b", "trial": 0, "reward": 0.0, "termination_reason": "user_stop"}
    assert marks_by_rules(Case(bare)) == []


def test_identifiers_are_neither_dates_nor_amounts_nor_small_numbers() -> None:
    text = "On 2024-05-20 I paid $1,234.56 for 3 items of #W123456; zip 19122, JMO1MG, a.b@c.org, call 555-123-2002"
    assert list(identifiers(text)) == ["#W123456", "19122", "JMO1MG", "a.b@c.org", "555-123-2002"]


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("Do you confirm (yes/no)?", True),
        ("Please provide your order id.", True),
        ("It is done. Is there anything else I can help you with?", False),
        ("Unfortunately I cannot do that. If you have other questions, let me know!", False),
    ],
)
def test_an_agent_waits_where_it_asks_for_more_than_further_wishes(text: str, waits: bool) -> None:
    assert awaits(text) is waits


def test_a_turn_of_the_script_is_a_text_or_a_call() -> None:
    script = script_of(load_domain("retail").tasks(limit=1)[0])
    assert all((turn.text is None) == bool(turn.name) for turn in script)
    assert script[-1] == Turn("user", "No, that is all. Thank you! ###STOP###", part="close")


def test_from_which_message_on_a_task_is_lost_is_found_by_playing_what_was_left() -> None:
    domain = load_domain("retail")
    [task] = domain.tasks(ids=["0"])

    def lost(fault: str) -> tuple[Case, int | None]:
        played = case_of(domain, task, record("0", fault))
        return played, lost_at(played, domain)

    breached, turn = lost("policy_breach")
    assert turn is not None
    assert breached.messages[turn]["tool_calls"]
    assert lost("early_stop")[1] is None
    assert lost("skipped_step")[1] is None
    assert lost_at(case_of(domain, task, record("0")), domain) is None


def test_an_error_of_the_customer_decides_nothing_once_the_agent_has_lost_the_task() -> None:
    early = case(said("Hi!", "I want to cancel.", "Which order is it?", "I need to go. ###STOP###"))
    assert review_by_rules(early).verdict is Verdict.customer
    after = review_by_rules(early, lost_at=2)
    assert (after.verdict, after.marks[0].severity, after.left_out) == (Verdict.nobody, Severity.minor, False)
    assert review_by_rules(early, lost_at=1).left_out, "it was the customer's own doing"


def test_a_customer_that_failed_is_the_customers_error() -> None:
    failed = case(said("Hi!", "I want to cancel.", "Which order is it?"), termination_reason="user_error")
    assert review_by_rules(failed).verdict is Verdict.customer
