"""Domains of somebody's tau2: what they give, how their simulations are scored, what the end of their process does."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.custom.child.environments import RegistryDomain
from tau2_fleet.benchmark.custom.process import ChildEnded, ChildError
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.package import AssistantMessage, ToolCall, ToolMessage
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.benchmark.transcript import TranscriptError
from tau2_fleet.benchmark.version import BenchmarkVersion, find_version
from tau2_fleet.errors import UserError
from tests.benchmark.small_tau2 import write_small_tau2
from tests.waiting import until


def custom(path: Path, **more: Any) -> BenchmarkVersion:
    return find_version(BenchmarkSettings(name="custom", path=str(path), **more))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    version: Any = custom(write_small_tau2(tmp_path_factory.mktemp("small")))
    yield version
    version.child.close()


@pytest.fixture
def lamps(version: Any) -> Any:
    return version.load_domain("lamps")


def call(name: str, requestor: Any = "assistant", **arguments: Any) -> ToolCall:
    return ToolCall(id="1", name=name, arguments=arguments, requestor=requestor)


def trajectory(*pairs: tuple[ToolCall, str]) -> list[Any]:
    messages: list[Any] = []
    for one, answer in pairs:
        messages.append(AssistantMessage(role="assistant", content=None, tool_calls=[one]))
        messages.append(ToolMessage(id="1", role="tool", content=answer, requestor=one.requestor))
    return messages


def test_registry_gives_tasks_tools_policy_and_rules(version: Any, lamps: Domain) -> None:
    assert version.domain_names == ("lamps",)
    assert lamps.task_sets() == {"base": 2, "short": 1}
    assert [task.id for task in lamps.tasks()] == ["hall", "attic"]
    assert [task.id for task in lamps.tasks("short")] == ["hall"]
    assert lamps.policy == "Be brief. The light is plain."
    assert [tool["function"]["name"] for tool in lamps.agent_tools] == ["switch", "look", "calculate", "misbehave"]
    assert lamps.tool_types["switch"] == "write"
    assert (version.rules.name, version.code().version) == ("tau2-0.2", "7.1")
    assert lamps.find(["attic", "cellar"]).keys() == {"attic"}


def test_a_task_says_which_of_its_tools_the_user_sees_and_keeps_fields_that_nobody_knows(lamps: Domain) -> None:
    hall, attic = lamps.tasks()
    assert [[tool["function"]["name"] for tool in lamps.user_tools_of(task)] for task in (hall, attic)] == [
        ["count"],
        [],
    ]
    assert [lamps.as_written(task)["mood"] for task in (hall, attic)] == ["calm", "cross"]


def test_runs_are_scored_by_the_state_that_their_calls_leave(lamps: Domain) -> None:
    async def play(*calls: ToolCall) -> Any:
        environment: Any = lamps.environment(lamps.tasks()[0])
        for one in calls:
            await environment.respond(one)
            environment.sync()
        return await environment.final_state()

    async def scenario() -> None:
        right = await play(call("look", lamp="hall"), call("switch", lamp="hall"))
        assert (right.db_match, right.differences, right.assertions) == (True, (), (True,))
        nothing = await play()
        assert (nothing.db_match, nothing.assertions) == (False, (False,))
        wrong = await play(call("switch", lamp="attic"))
        assert [(one.side, one.table, one.key, one.expected, one.actual) for one in wrong.differences] == [
            ("agent", "lamps", "hall", "true", "false"),
            ("agent", "lamps", "attic", "false", "true"),
        ]

    asyncio.run(scenario())


def test_many_simulations_at_once_do_not_see_each_other(lamps: Domain) -> None:
    async def one(number: int) -> bool:
        environment: Any = lamps.environment(lamps.tasks()[0])
        if number % 2:
            await environment.respond(call("switch", lamp="hall"))
        seen = (await environment.respond(call("look", lamp="hall"))).content
        assert seen == ("hall is on" if number % 2 else "hall is off")
        return bool((await environment.final_state()).db_match)

    async def scenario() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(24)))

    assert asyncio.run(scenario()) == [bool(number % 2) for number in range(24)]


def test_simulations_go_on_when_their_process_is_killed(version: Any, lamps: Domain) -> None:
    async def scenario() -> None:
        environments: list[Any] = [lamps.environment(lamps.tasks()[0]) for _ in range(3)]
        await environments[0].respond(call("switch", lamp="hall"))
        await environments[1].respond(call("look", lamp="hall"))
        os.kill(version.child.pid, signal.SIGKILL)
        await until(lambda: not version.child.alive)
        found = await asyncio.gather(*(environment.final_state() for environment in environments))
        assert [state.db_match for state in found] == [True, False, False]
        assert (await environments[0].respond(call("look", lamp="hall"))).content == "hall is on"

    asyncio.run(scenario())


def test_a_call_that_ends_the_process_is_an_error_of_its_simulation_alone(lamps: Domain) -> None:
    async def scenario() -> None:
        guilty, innocent = [lamps.environment(lamps.tasks()[0]) for _ in range(2)]
        ended: Any
        seen: Any
        await innocent.respond(call("switch", lamp="hall"))
        await guilty.respond(call("look", lamp="hall"))
        ended, seen = await asyncio.gather(
            guilty.respond(call("misbehave", how="die")),
            innocent.respond(call("look", lamp="hall")),
            return_exceptions=True,
        )
        assert isinstance(ended, ChildEnded)
        assert isinstance(ended, ChildError)
        assert isinstance(seen, ToolMessage)
        assert seen.content == "hall is on"
        assert (await innocent.final_state()).db_match

    asyncio.run(scenario())


def test_an_expression_that_never_ends_is_a_deadline(lamps: Domain) -> None:
    async def scenario() -> None:
        environment = lamps.environment(lamps.tasks()[0])
        with pytest.raises(ToolDeadline):
            await environment.respond(call("calculate", expression="9**9**9"))

    asyncio.run(scenario())


def test_environments_that_nobody_has_are_closed(version: Any, lamps: Domain) -> None:
    async def scenario() -> int:
        for _ in range(5):
            await lamps.environment(lamps.tasks()[0]).respond(call("look", lamp="hall"))
        gc.collect()
        kept = lamps.environment(lamps.tasks()[0])
        await kept.respond(call("look", lamp="hall"))
        return int(version.child.ask("count_open"))

    assert asyncio.run(scenario()) <= 2


def test_a_recorded_run_is_scored_by_a_replay_and_refused_where_its_answers_are_others(lamps: Domain) -> None:
    task = lamps.tasks()[0]
    done = (call("switch", lamp="hall"), "done")

    async def replayed(*pairs: tuple[ToolCall, str], strict: bool = True) -> Any:
        return await lamps.replayed(task, trajectory(*pairs), strict=strict)

    async def scenario() -> None:
        assert (await replayed(done))[0].db_match
        with pytest.raises(TranscriptError, match="message 1, look: recorded 'hall is on', replayed 'hall is off'"):
            await replayed((call("look", lamp="hall"), "hall is on"), done)
        state, different = await replayed((call("look", lamp="hall"), "hall is on"), (done[0], "Done."), strict=False)
        assert (state.db_match, [one.tool for one in different]) == (True, ["switch"])
        with pytest.raises(TranscriptError, match="without a call"):
            await lamps.replayed(task, trajectory(done)[1:])

    asyncio.run(scenario())


def test_other_rules_replay_only_what_writes(version: Any) -> None:
    lamps = custom(version.place.root, scoring="tau2-1.0.1").load_domain("lamps")
    reads = [(call("look", lamp="hall"), "hall is on"), (call("fly"), "we flew"), (call("switch", lamp="hall"), "done")]
    state, different = asyncio.run(lamps.replayed(lamps.tasks()[0], trajectory(*reads)))
    assert (state.db_match, different) == (True, ())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("library",), "no domain 'library' in benchmark.path=.*: lamps"),
        (("lamps", "/tmp"), "domain.lamps.data_dir: not with benchmark=custom"),
        (("lamps", None, None, "bm25"), "takes no retrieval_variant"),
    ],
)
def test_what_the_code_does_not_have_is_refused(version: Any, arguments: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        version.load_domain(*arguments)


def test_custom_needs_a_path_and_code_that_reads_the_data_that_are_named(version: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="benchmark.path=PATH"):
        find_version(BenchmarkSettings(name="custom"))
    other: Any = custom(version.place.root, data_dir=str(tmp_path))
    with pytest.raises(UserError, match="benchmark.data_dir=.* reads .* whatever is named"):
        other.load_domain("lamps")
    other.child.close()


def test_code_and_data_are_part_of_the_name(version: Any, lamps: Domain, tmp_path: Path) -> None:
    identity = version.identity([lamps])
    assert identity.label == f"custom (tau2 7.1, code {version.place.digest[:12]}), scored as tau2-0.2"
    changed: Any = custom(write_small_tau2(tmp_path, lamps="# another\n"))
    other = changed.identity([changed.load_domain("lamps")])
    assert other.data.domains != identity.data.domains
    assert other.beyond_keys != identity.beyond_keys
    changed.child.close()


def test_the_installed_code_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_fleet.benchmark.package import source

    version: Any = custom(source("tau2").parent)
    assert version.load_domain("mock").template is not None
    assert (version.installed, version.child.pid, version.data_dir) == (True, None, None)


def test_the_reads_among_a_tasks_gold_actions_are_told_to_the_code_that_logs_them() -> None:
    told = []

    def constructor(read_log_allowlist: set[str] | None = None) -> dict[str, str]:
        told.append(read_log_allowlist)
        return {}

    read = SimpleNamespace(name="call_discoverable_agent_tool", arguments={"agent_tool_name": "get_history_1"})
    other = SimpleNamespace(name="log_verification", arguments={"agent_tool_name": "no"})
    task = SimpleNamespace(evaluation_criteria=SimpleNamespace(actions=[other, read]))
    RegistryDomain("bank", constructor, {}).new(task)
    assert told == [{"get_history_1"}]
