"""Rewards where the base tasks do not go: the judge's part, other bases, missing criteria, our own endings."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, UserMessage
from tau2_fleet.evaluation.reward import Evaluation, NLCheck, evaluate
from tau2_fleet.evaluation.termination import OURS, TerminationReason
from tests.benchmark.package_side import package, reward_info

KINDS = ["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION"]


def mock_task(**criteria: Any) -> Task:
    """The mock domain's first task with other criteria; none at all without arguments."""
    raw = load_domain("mock").tasks()[0].model_dump(mode="json")
    return Task.model_validate({**raw, "evaluation_criteria": criteria or None})


def create(title: str = "Important Meeting", **more: Any) -> dict[str, Any]:
    return {"action_id": "1", "name": "create_task", "arguments": {"user_id": "user_1", "title": title}, **more}


def scored(
    task: Task, calls: list[dict[str, Any]], texts: list[str], verdicts: list[tuple[str, bool, str]] | None = None
) -> tuple[Evaluation, dict[str, Any]]:
    """Our score of a run with these calls and texts, and the package's."""

    async def run() -> tuple[list[Message], Any]:
        environment = load_domain("mock").environment(task)
        messages: list[Message] = []
        for number, arguments in enumerate(calls):
            call = ToolCall(id=str(number), name="create_task", arguments=arguments)
            messages += [AssistantMessage(role="assistant", tool_calls=[call]), await environment.respond(call)]
        messages += [AssistantMessage(role="assistant", content=text) for text in texts]
        messages.append(UserMessage(role="user", content="###STOP###"))
        return messages, await environment.final_state()

    messages, state = asyncio.run(run())
    checks = None if verdicts is None else [NLCheck(*verdict) for verdict in verdicts]
    mine = evaluate(task, messages, TerminationReason.user_stop, state, checks)
    with package():
        theirs = reward_info("mock", task, messages, "user_stop", nl_verdicts=verdicts)
    return mine, theirs


BASES = [list(basis) for size in range(6) for basis in itertools.combinations(KINDS, size)]


@pytest.mark.parametrize("basis", BASES, ids=lambda basis: "+".join(basis) or "none")
def test_every_basis_multiplies_what_the_package_multiplies(basis: list[str]) -> None:
    task = mock_task(
        actions=[create()],
        env_assertions=[
            {"env_type": "assistant", "func_name": "assert_number_of_tasks",
             "arguments": {"user_id": "user_1", "expected_number": 2}}
        ],
        communicate_info=["task_2", "10"],
        nl_assertions=["polite"],
        reward_basis=basis,
    )  # fmt: skip
    good: dict[str, Any] = {"user_id": "user_1", "title": "Important Meeting"}
    runs: list[tuple[list[dict[str, Any]], list[str], bool]] = [
        ([good], ["TASK_2, for $1,0"], True),
        ([good], ["TASK_2, for $1,0"], False),
        ([good], ["nothing"], True),
        ([good, good], ["task_2 10"], True),
        ([{**good, "title": "Other"}], ["task_2", "10"], True),
        ([], [], False),
    ]
    for calls, texts, polite in runs:
        mine, theirs = scored(task, calls, texts, [("polite", polite, "because")])
        assert mine.reward_info == theirs
        assert mine.reward == theirs["reward"]
        assert set(mine.sub_rewards) == set(KINDS)
        assert mine.sub_rewards["NL_ASSERTION"] == float(polite)
        if "NL_ASSERTION" not in basis:
            mine, theirs = scored(task, calls, texts)
            assert mine.reward_info == theirs
            assert "NL_ASSERTION" not in mine.sub_rewards


@pytest.mark.parametrize(
    "criteria",
    [
        {"reward_basis": ["DB"]},
        {"reward_basis": ["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"]},
        {"actions": [], "reward_basis": ["DB", "ACTION"]},
        {"env_assertions": [], "communicate_info": [], "nl_assertions": []},
        {"nl_assertions": ["x"]},
    ],
)
def test_criteria_that_are_missing_hold_as_in_the_package(criteria: dict[str, Any]) -> None:
    for calls in ([], [{"user_id": "user_1", "title": "x"}]):
        for verdicts in (None, [("x", False, "")]):
            mine, theirs = scored(mock_task(**criteria), calls, ["hello"], verdicts)
            assert mine.reward_info == theirs
            assert mine.reward == theirs["reward"]


def test_no_criteria_at_all_is_a_reward() -> None:
    mine, theirs = scored(mock_task(), [], [])
    assert (mine.reward, mine.reward_info) == (1.0, theirs)
    assert mine.sub_rewards == dict.fromkeys(["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"], 1.0)


@pytest.mark.parametrize(
    ("compare_args", "arguments", "matches"),
    [
        (None, {"user_id": "user_1", "title": "Important Meeting"}, True),
        (None, {"title": "Important Meeting"}, True),
        (None, {}, True),
        (None, {"user_id": "user_1", "title": "Important Meeting", "description": "x"}, False),
        ([], {"title": "Other"}, True),
        (["title"], {"title": "Important Meeting", "user_id": "nobody"}, True),
        (["title"], {"title": "important meeting"}, False),
        (["title"], {}, False),
    ],
)
def test_an_action_is_found_by_the_arguments_that_count(
    compare_args: list[str] | None, arguments: dict[str, Any], matches: bool
) -> None:
    task = mock_task(actions=[create(compare_args=compare_args)], reward_basis=["ACTION"])
    mine, theirs = scored(task, [arguments], [])
    assert mine.reward == float(matches)
    assert mine.reward_info == theirs


def test_one_call_serves_several_actions_and_arguments_compare_as_python_compares() -> None:
    first, second = create(), create()
    first["arguments"]["user_id"], second["arguments"]["user_id"] = 1, True
    task = mock_task(actions=[first, second], reward_basis=["ACTION"])
    mine, theirs = scored(task, [{"user_id": 1.0, "title": "Important Meeting"}], [])
    assert mine.reward == 1.0
    assert mine.reward_info == theirs


def test_verdicts_must_cover_every_assertion() -> None:
    task = mock_task(nl_assertions=["a", "b"], reward_basis=["NL_ASSERTION"])
    state = asyncio.run(load_domain("mock").environment(task).final_state())
    full = [NLCheck("a", True, ""), NLCheck("b", True, "")]
    assert evaluate(task, [], "user_stop", state, full).reward == 1.0
    assert evaluate(task, [], "user_stop", state, full[:1]).reward == 0.0
    assert evaluate(task, [], "user_stop", state, []).reward == 0.0


@pytest.mark.parametrize("ending", [ending for ending in TerminationReason if not ending.regular])
def test_an_end_before_its_time_scores_nothing_and_keeps_its_sub_rewards(ending: TerminationReason) -> None:
    domain = load_domain("mock")
    task = domain.tasks()[0]
    call = ToolCall(id="1", name="create_task", arguments={"user_id": "user_1", "title": "Important Meeting"})

    async def run() -> Any:
        environment = domain.environment(task)
        await environment.respond(call)
        return await environment.final_state()

    messages: list[Message] = [AssistantMessage(role="assistant", tool_calls=[call])]
    mine = evaluate(task, messages, ending, asyncio.run(run()))
    assert mine.reward == 0.0
    assert mine.sub_rewards == dict.fromkeys(["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"], 1.0)
    assert evaluate(task, messages, ending, None).sub_rewards == {"ACTION": 1.0, "COMMUNICATE": 1.0}
    if ending in OURS:
        assert f"agent_error ({ending})" in mine.reward_info["info"]["note"]
    else:
        with package():
            assert mine.reward_info == reward_info("mock", task, [], ending)


def test_a_reward_without_what_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="final state"):
        evaluate(mock_task(actions=[]), [], "user_stop", None)
    task = mock_task(nl_assertions=["x"], reward_basis=["NL_ASSERTION"])
    state = asyncio.run(load_domain("mock").environment(task).final_state())
    with pytest.raises(ValueError, match="judge was not asked"):
        evaluate(task, [], "user_stop", state)


def test_endings_are_those_of_the_package_and_three_of_ours() -> None:
    from tau2.data_model.simulation import TerminationReason as Theirs

    assert {ending.value for ending in TerminationReason} == {ending.value for ending in Theirs} | OURS
    assert [ending.value for ending in TerminationReason if ending.regular] == ["user_stop", "agent_stop"]
