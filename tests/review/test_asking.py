"""How models are asked for reviews, and what their votes come to where several differ."""

from __future__ import annotations

import asyncio

import pytest

from tau2_fleet.analysis.reviews import Effect, ErrorKind, ErrorSource, Mark, Severity, Verdict
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.settings import Api, ModelSettings, Provider
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.answers import Vote, majority
from tau2_fleet.review.sampling import stratified
from tau2_fleet.review.servers import FixedServers, form_of


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (ModelSettings(Provider.openai), ("response_format", "json_schema", "schema")),
        (ModelSettings(Provider.vllm), ("response_format", "json_schema", "schema")),
        (ModelSettings(Provider.openai, api=Api.responses), ("text", "format", "schema")),
        (ModelSettings(Provider.anthropic, reasoning_effort="low"), ("output_config", "format", "schema")),
    ],
)
def test_each_provider_is_asked_for_the_schema_in_its_own_words(
    settings: ModelSettings, place: tuple[str, ...]
) -> None:
    found = form_of(settings)
    for name in place:
        found = found[name]
    assert found["required"] == ["case", "errors"]
    if settings.reasoning_effort:
        assert form_of(settings)["output_config"]["effort"] == "low"


def test_requests_go_to_the_server_that_has_the_fewest_and_not_to_the_one_that_failed() -> None:
    router = FixedServers([Endpoint(f"j/{n}", f"http://h{n}", "m") for n in range(2)])

    async def go() -> None:
        first, second = await router.acquire("a"), await router.acquire("b")
        assert {first.name, second.name} == {"j/0", "j/1"}
        router.release(first, "a")
        assert await router.acquire("c", avoid=first) is second
        assert await router.acquire("d") is first

    asyncio.run(go())


def mark(kind: ErrorKind, turn: int, severity: Severity = Severity.major, effect: Effect = Effect.hindered) -> Mark:
    return Mark(kind, severity, effect, "", turn, source=ErrorSource.review, votes=1)


CUSTOMER = Vote((mark(ErrorKind.early_stop, 9),))
OTHER_CUSTOMER = Vote((mark(ErrorKind.off_scenario, 3),))
AGENT = Vote((mark(ErrorKind.policy_breach, 4, effect=Effect.none),))
NOTHING = Vote(())
TWICE = Vote((mark(ErrorKind.early_stop, 9), mark(ErrorKind.early_stop, 5)))


@pytest.mark.parametrize(
    ("votes", "asked", "verdict", "kinds"),
    [
        ([CUSTOMER, CUSTOMER, AGENT], 3, Verdict.customer, ["early_stop"]),
        ([CUSTOMER, OTHER_CUSTOMER, AGENT], 3, Verdict.customer, ["off_scenario"]),
        ([CUSTOMER, AGENT], 2, Verdict.undecided, []),
        ([CUSTOMER, AGENT, NOTHING], 3, Verdict.undecided, []),
        ([CUSTOMER], 3, Verdict.undecided, ["early_stop"]),
        ([NOTHING, NOTHING], 3, Verdict.nobody, []),
        ([], 3, Verdict.undecided, []),
        ([TWICE, TWICE], 2, Verdict.customer, ["early_stop"] * 2),
    ],
)  # fmt: skip
def test_more_than_half_of_what_was_asked_for_is_a_verdict(
    votes: list[Vote], asked: int, verdict: Verdict, kinds: list[str]
) -> None:
    found = majority(votes, asked)
    assert found.verdict is verdict
    if verdict is Verdict.customer and len(kinds) == 1 and kinds[0] == "off_scenario":
        assert [str(one.kind) for one in found.marks] in (["off_scenario"], ["early_stop"])
    else:
        assert [str(one.kind) for one in found.marks] == kinds


def test_a_larger_sample_holds_the_smaller_one() -> None:
    found = [(SimulationKey(domain, str(n), 0), n % 4 > 0) for domain in ("a", "b") for n in range(40)]
    few, many = stratified(found, 8, 1), stratified(found, 20, 1)
    assert set(few) <= set(many)
    assert len(many) == 20
    assert sum(many.values()) == pytest.approx(80)
    assert len(stratified(found, 1, 1)) == 4, "every domain, passed and failed"
    assert len(stratified(found, 1000, 1)) == 80
