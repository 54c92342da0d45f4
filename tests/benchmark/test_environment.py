"""What an environment answers and how it tells the end, where the differential suite does not look."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.comparison import MAX_DIFFERENCES, MAX_VALUE_LENGTH
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.environment import Environment, FinalState, replayed
from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, ToolMessage, UserMessage
from tau2_fleet.benchmark.transcript import TranscriptError
from tau2_fleet.errors import UserError
from tests.benchmark.package_side import RANDOM_ID, new_environment, package, reward_info, set_initial_state
from tests.benchmark.trajectories import gold_calls

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


def call(name: str, requestor: str = "assistant", /, **arguments: Any) -> ToolCall:
    return ToolCall(id="x", name=name, arguments=arguments, requestor=requestor)


def ended(environment: Environment, *calls: ToolCall) -> FinalState:
    """The final state after these calls."""

    async def run() -> FinalState:
        for item in calls:
            await environment.respond(item)
            environment.sync()
        return await environment.final_state()

    return asyncio.run(run())


def task_with(domain: LocalDomain, task_id: str, **changes: Any) -> Task:
    """A task of the domain with other criteria or another initial state."""
    raw = domain.find([task_id])[task_id].model_dump(mode="json")
    for name, value in changes.items():
        raw[name] = value
    return Task.model_validate(raw)


@pytest.mark.parametrize("name", ["mock", "retail", "airline", "telecom"])
def test_a_new_environment_is_small(name: str) -> None:
    domain = load_domain(name)
    tasks = domain.tasks()
    for task in tasks:
        domain.prepare(task)
    domain.environment(tasks[0])
    tracemalloc.start()
    kept = [domain.environment(tasks[index % len(tasks)]) for index in range(200)]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(kept) < 32 * 1024


def test_a_difference_names_table_record_and_field() -> None:
    domain = load_domain("mock")
    (task,) = domain.tasks(ids=["update_task_1"])
    state = ended(domain.environment(task), call("update_task_status", task_id="task_1", status=True))
    assert not state.db_match
    assert [difference.as_dict() for difference in state.differences] == [
        {"side": "agent", "table": "tasks", "key": "task_1", "field": "status",
         "expected": '"completed"', "actual": "true"}
    ]  # fmt: skip
    state = ended(domain.environment(task), call("create_task", user_id="user_1", title="More"))
    found = {(item.table, item.key, item.field, item.expected, item.actual) for item in state.differences}
    assert ("tasks", "task_1", "status", '"completed"', '"pending"') in found
    assert ("users", "user_1", "tasks[1]", "(missing)", '"task_2"') in found
    assert any(item[:4] == ("tasks", "task_2", "", "(missing)") and "More" in item[4] for item in found)


def test_a_number_of_another_type_is_a_difference() -> None:
    domain = load_domain("airline")
    task = next(
        task for task in domain.tasks() if any(c.name == "update_reservation_baggages" for c in gold_calls(task))
    )
    calls = [call(item.name, **item.arguments) for item in gold_calls(task)]
    assert ended(domain.environment(task), *calls).db_match
    bags = next(item for item in calls if item.name == "update_reservation_baggages")
    bags.arguments["total_baggages"] = float(bags.arguments["total_baggages"])
    state = ended(domain.environment(task), *calls)
    (difference,) = state.differences
    assert (difference.table, difference.field) == ("reservations", "total_baggages")
    assert difference.actual == difference.expected + ".0"


def test_the_phone_and_lists_of_telecom_are_compared_too() -> None:
    domain = load_domain("telecom")
    task = domain.tasks()[0]
    calls = [call(item.name, item.requestor, **item.arguments) for item in gold_calls(task)]
    state = ended(
        domain.environment(task),
        *calls,
        call("toggle_data_saver_mode", "user"),
        call("suspend_line", customer_id="C1001", line_id="L1002", reason="x"),
    )
    assert ("user", "device", "data_saver_mode", "false", "true") in {
        (item.side, item.table, item.field, item.expected, item.actual) for item in state.differences
    }
    assert ("agent", "lines", "L1002", "status", '"Active"', '"Suspended"') in {
        (item.side, item.table, item.key, item.field, item.expected, item.actual) for item in state.differences
    }


def test_differences_are_bounded_in_number_and_length() -> None:
    domain = load_domain("mock")
    task = domain.tasks()[0]
    calls = [call("create_task", user_id="user_1", title=f"{number}" * 300) for number in range(MAX_DIFFERENCES + 20)]
    state = ended(domain.environment(task), *calls)
    assert len(state.differences) == MAX_DIFFERENCES
    assert max(len(item.actual) for item in state.differences) == MAX_VALUE_LENGTH


def test_no_comparison_where_the_task_asks_for_none() -> None:
    domain = load_domain("mock")
    for criteria in (None, {"nl_assertions": ["x"]}):
        task = task_with(domain, "create_task_1", evaluation_criteria=criteria)
        state = ended(domain.environment(task), call("create_task", user_id="user_1", title="x"))
        assert (state.compared, state.db_match, state.differences) == (False, True, ())
    task = task_with(domain, "create_task_1", evaluation_criteria={"actions": []})
    assert not ended(domain.environment(task), call("create_task", user_id="user_1", title="x")).db_match
    assert ended(domain.environment(task)).db_match


def test_an_assertion_that_cannot_run_is_not_met_and_noted() -> None:
    domain = load_domain("mock")
    (task,) = domain.tasks(ids=["create_task_1_with_env_assertions"])
    state = ended(domain.environment(task))
    assert state.assertions == (False,)
    assert "Task task_2 not found" in state.notes[0]


def test_gold_actions_that_fail_are_passed_over_even_when_they_would_run_for_ever() -> None:
    domain = load_domain("retail")
    actions = [
        {"action_id": "1", "name": "calculate", "arguments": {"expression": "9**9**9"}},
        {"action_id": "2", "name": "no_such_tool", "arguments": {"tool_name": 1}},
    ]
    task = task_with(domain, "0", evaluation_criteria={"actions": actions})
    assert ended(domain.environment(task)).db_match


def test_what_a_model_may_send_never_raises() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    calls = [
        call("update_task_status", task_id="task_1", status="\ud800"),
        call("update_task_status", task_id="\ud800", status="pending"),
        call("update_task_status", task_id="task_1", status=deep),
        call("update_task_status", task_id=deep, status="pending"),
        call("update_task_status", task_id="task_1", status=float("nan")),
        call("update_task_status", task_id="task_1", status=10**5000),
        call("create_task", user_id={}, title=None),
        call("", requestor="x", self="y"),
        call("__init__"),
    ]
    domain = load_domain("mock")
    environment = domain.environment(domain.tasks()[0])

    async def run() -> list[ToolMessage]:
        return [await environment.respond(item) for item in calls]

    assert all(isinstance(answer.content, str) for answer in asyncio.run(run()))
    assert not asyncio.run(environment.final_state()).db_match


def test_what_cannot_be_written_as_json_is_a_mismatch() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    domain = load_domain("mock")
    state = ended(domain.environment(domain.tasks()[0]), call("update_task_status", task_id="task_1", status=deep))
    assert "(cannot be written as JSON)" in {item.actual for item in state.differences}


def test_a_wrong_initial_state_names_its_task() -> None:
    domain = load_domain("mock")
    user = {"role": "user", "content": "hi"}
    agent = {"role": "assistant", "tool_calls": [{"id": "1", "name": "get_users", "arguments": {}}]}
    wrong = [
        {"initialization_actions": [{"env_type": "assistant", "func_name": "no_such_function", "arguments": {}}]},
        {"initialization_actions": [{"env_type": "user", "func_name": "anything", "arguments": {}}]},
        {"initialization_data": {"agent_data": {"users": {"user_1": {"name": []}}}}},
        {"initialization_data": {"user_data": {"device": {}}}},
        {"message_history": [user, agent]},
        {"message_history": [user, agent, {"role": "tool", "id": "2", "content": ""}]},
        {"message_history": [user, agent, {"role": "tool", "id": "1", "content": "[]"}]},
        {"message_history": [user, {"role": "tool", "id": "1", "content": "[]"}]},
    ]
    for state in wrong:
        with pytest.raises(UserError, match=r"task create_task_1: its (initial state|message history)"):
            domain.environment(task_with(domain, "create_task_1", initial_state=state))


def test_initial_data_takes_no_memory_for_what_it_leaves_alone() -> None:
    domain = load_domain("retail")
    pristine = domain.template.pristine.agent.database.fields
    user_id = next(iter(pristine["users"]))
    data = {"agent_data": {"users": {user_id: {"email": "new@example.com"}}}}
    task = task_with(domain, "0", initial_state={"initialization_data": data})
    fields = domain.prepare(task).initial.agent.database.fields
    changed = [key for table in fields for key in fields[table] if fields[table][key] is not pristine[table].get(key)]
    assert changed == [user_id]
    assert fields["users"][user_id].email == "new@example.com" != pristine["users"][user_id].email


def customer_without_draft(domain: LocalDomain) -> tuple[str, str]:
    """A customer, and one of their lines."""
    fields = domain.template.pristine.agent.database.fields
    drafts = {bill.customer_id for bill in fields["bills"] if bill.status.value == "Draft"}
    customer = next(record for record in fields["customers"] if record.customer_id not in drafts and record.line_ids)
    return customer.customer_id, customer.line_ids[0]


def test_a_random_bill_id_keeps_the_live_state_and_names_the_call() -> None:
    domain = load_domain("telecom")
    customer, line = customer_without_draft(domain)
    refuel = call("refuel_data", customer_id=customer, line_id=line, gb_amount=2)
    look = call("get_customer_by_id", customer_id=customer)
    fails = call("get_details_by_id", id="L0")
    environment = domain.environment(domain.tasks()[0])
    state = ended(environment, refuel, look, fails)
    assert len(state.notes) == 1
    assert "refuel_data" in state.notes[0]
    assert "random id" in state.notes[0]
    assert any(item.table == "bills" and item.expected == "(missing)" for item in state.differences)
    assert ended(domain.environment(domain.tasks()[0]), refuel, look).notes == ()
    assert ended(domain.environment(domain.tasks()[0]), refuel, fails).notes == ()


def test_a_trajectory_with_a_random_id_is_refused_with_the_call_that_drew_it() -> None:
    domain = load_domain("telecom")
    task = domain.tasks()[0]
    customer, line = customer_without_draft(domain)
    calls = [
        call("refuel_data", customer_id=customer, line_id=line, gb_amount=2),
        call("get_customer_by_id", customer_id=customer),
    ]

    async def run() -> list[Message]:
        environment, messages = domain.environment(task), []
        for item in calls:
            messages += [AssistantMessage(role="assistant", tool_calls=[item]), await environment.respond(item)]
        return messages

    with pytest.raises(TranscriptError, match=r"message 3, get_customer_by_id.*\(refuel_data in message 1 draws"):
        asyncio.run(replayed(domain.prepare(task), asyncio.run(run())))


def test_live_and_replayed_state_are_scored_alike_when_calls_failed() -> None:
    """A failed call that has written already: the live run syncs after it, the benchmark's replay does not."""
    domain = load_domain("telecom")
    task = domain.tasks()[0]
    calls = [
        call("set_apn_settings", "user", apn_settings="nonsense"),
        call("check_network_status", "user"),
        call("check_status_bar", "user"),
    ]
    environment = domain.environment(task)

    async def run() -> list[Message]:
        messages: list[Message] = [UserMessage(role="user", content="hello")]
        for item in calls:
            messages += [UserMessage(role="user", tool_calls=[item]), await environment.respond(item)]
            environment.sync()
        return messages

    with package():
        messages = asyncio.run(run())
        assert [message.error for message in messages if isinstance(message, ToolMessage)] == [True, False, False]
        state = asyncio.run(environment.final_state())
        theirs = reward_info("telecom", task, messages, "user_stop")
    assert state.notes == ()
    assert state.db_match == theirs["db_check"]["db_match"]
    assert list(state.assertions) == [check["met"] for check in theirs["env_assertions"]]


def test_a_deadline_comes_out_of_a_replay_too() -> None:
    domain = load_domain("retail")
    item = call("calculate", expression="8**8**8**8")
    messages: list[Message] = [
        AssistantMessage(role="assistant", tool_calls=[item]),
        ToolMessage(role="tool", id="x", content="1.0"),
    ]
    with pytest.raises(ToolDeadline):
        asyncio.run(replayed(domain.prepare(domain.tasks()[0]), messages))


def _of_its_side(domain: LocalDomain, item: ToolCall) -> list[str]:
    tools = domain.user_tools if item.requestor == "user" else domain.agent_tools
    return [tool["function"]["name"] for tool in tools]


def test_solo_and_normal_mode_offer_what_the_package_offers() -> None:
    domain = load_domain("telecom")
    task = domain.tasks()[0]
    for solo in (False, True):
        for item in (call("check_status_bar"), call("check_status_bar", "user"), call("get_customer_by_id", "user")):
            with package():
                ours, theirs = domain.environment(task, solo=solo), new_environment("telecom", solo)
                set_initial_state(theirs, task)
                expected = theirs.get_response(item)
                answer = asyncio.run(ours.respond(item))
                assert (answer.content, answer.error) == (expected.content, expected.error)
                assert answer.error == (
                    item.requestor == "user" if solo else item.name not in _of_its_side(domain, item)
                )


def test_the_package_draws_its_random_ids_where_the_tests_hold_them() -> None:
    domain = load_domain("telecom")
    customer, line = customer_without_draft(domain)
    with package():
        environment = domain.environment(domain.tasks()[0])

        async def run() -> Any:
            await environment.respond(call("refuel_data", customer_id=customer, line_id=line, gb_amount=1))
            answer = await environment.respond(call("get_bills_for_customer", customer_id=customer))
            return json.loads(answer.content or "")

        assert f"B{RANDOM_ID[:8]}" in [bill["bill_id"] for bill in asyncio.run(run())]
