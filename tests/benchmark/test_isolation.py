"""Environments share data and see nothing of each other; each gives what the package's gives, to the last byte."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tau2_fleet.benchmark.databases import thawed
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.environment import Environment
from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import ToolCall, ToolMessage
from tau2_fleet.benchmark.record_values import canonical
from tests.benchmark.package_side import new_environment, package, set_initial_state
from tests.benchmark.trajectories import gold_calls, random_call

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

DOMAINS = ["mock", "retail", "airline", "telecom"]


def pristine_digest(domain: LocalDomain) -> str:
    """Of everything that all environments of a domain share."""
    digest = hashlib.sha256()
    for state in (domain.template.pristine.agent, domain.template.pristine.user):
        if state is not None:
            digest.update(canonical(state.database.plain()).encode())
            digest.update(canonical({name: repr(value) for name, value in state.attributes.items()}).encode())
    return digest.hexdigest()


def hashes(environment: Environment) -> list[str]:
    """Digests of both databases, as the package makes them."""
    inner = environment.package_environment
    kits = [inner.tools, *([inner.user_tools] if inner.user_tools is not None else [])]
    return [str(thawed(kit.db).get_hash()) for kit in kits]


def random_calls(domain: LocalDomain, index: int, seed: int, number: int = 25) -> list[ToolCall]:
    """A task's gold calls among random ones."""
    rng = random.Random(f"{domain.name}/{index}/{seed}")
    calls = gold_calls(domain.tasks()[index]) + [random_call(domain, rng) for _ in range(number)]
    rng.shuffle(calls)
    return [
        ToolCall(id=str(place), name=call.name, arguments=call.arguments, requestor=call.requestor)
        for place, call in enumerate(calls)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DOMAINS)
def test_random_calls_give_the_outputs_and_databases_of_the_package(name: str, seed: int) -> None:
    domain = load_domain(name)
    index = random.Random(f"{name}/{seed}").randrange(len(domain.tasks()))
    with package():
        ours, theirs = domain.environment(domain.tasks()[index]), new_environment(name)
        set_initial_state(theirs, domain.tasks()[index])

        async def both() -> None:
            for call in random_calls(domain, index, seed):
                answer, expected = await ours.respond(call), theirs.get_response(call)
                assert (answer.content, answer.error) == (expected.content, expected.error), call
                ours.sync()
                theirs.sync_tools()

        asyncio.run(both())
        assert hashes(ours) == [
            digest for digest in (theirs.get_db_hash(), theirs.get_user_db_hash()) if digest is not None
        ]


@pytest.mark.parametrize("name", DOMAINS)
def test_environments_side_by_side_do_what_they_do_alone(name: str) -> None:
    domain = load_domain(name)
    before = pristine_digest(domain)
    indices = list(range(min(5, len(domain.tasks()))))

    async def alone(index: int) -> tuple[list[ToolMessage], list[str]]:
        environment = domain.environment(domain.tasks()[index])
        answers = [await environment.respond(call) for call in random_calls(domain, index, 0)]
        return answers, hashes(environment)

    async def together() -> list[tuple[list[ToolMessage], list[str]]]:
        environments = [domain.environment(domain.tasks()[index]) for index in indices]
        scripts = [random_calls(domain, index, 0) for index in indices]
        answers: list[list[ToolMessage]] = [[] for _ in indices]
        for step in range(max(map(len, scripts))):
            for place, script in enumerate(scripts):
                if step < len(script):
                    answers[place].append(await environments[place].respond(script[step]))
        return [(given, hashes(environment)) for given, environment in zip(answers, environments, strict=True)]

    with package():
        expected = [asyncio.run(alone(index)) for index in indices]
        assert asyncio.run(together()) == expected
    assert pristine_digest(domain) == before


@pytest.mark.parametrize("name", DOMAINS)
def test_shared_data_is_what_it_was_after_all_gold_runs(name: str) -> None:
    domain = load_domain(name)
    before = pristine_digest(domain)
    starts = {task.id: canonical(domain.prepare(task).opened.agent.database.plain()) for task in domain.tasks()[:20]}

    async def run() -> None:
        for task in domain.tasks():
            environment = domain.environment(task)
            for place, call in enumerate(gold_calls(task)):
                await environment.respond(
                    ToolCall(id=str(place), name=call.name, arguments=call.arguments, requestor=call.requestor)
                )
                environment.sync()
            await environment.final_state()

    asyncio.run(run())
    assert pristine_digest(domain) == before
    for task in domain.tasks()[:20]:
        assert canonical(domain.prepare(task).opened.agent.database.plain()) == starts[task.id]


def test_a_broken_vpn_stays_in_its_own_simulation() -> None:
    domain = load_domain("telecom")
    tasks = domain.tasks("full")
    broken = next(task for task in tasks if "break_vpn" in task.id or "vpn" in task.id)
    sound = next(task for task in tasks if "vpn" not in task.id)

    async def speed_after_reconnecting(environment: Environment) -> str:
        for place, name in enumerate(["disconnect_vpn", "connect_vpn", "check_vpn_status"]):
            answer = await environment.respond(ToolCall(id=str(place), name=name, arguments={}, requestor="user"))
        return str(answer.content)

    first = asyncio.run(speed_after_reconnecting(domain.environment(broken)))
    second = asyncio.run(speed_after_reconnecting(domain.environment(sound)))
    assert "<PerformanceLevel.POOR: 'poor'>" in first
    assert "<PerformanceLevel.EXCELLENT: 'excellent'>" in second
    assert asyncio.run(speed_after_reconnecting(domain.environment(broken))) == first
