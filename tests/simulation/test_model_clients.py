from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tau2_fleet.agents.expert_handoff import call_expert_schema
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, PriceSettings, Provider
from tau2_fleet.simulation.model_clients import choose_roles, expert_cards, make_clients
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.settings import AgentMode, ExpertSettings, ExpertsSettings, JudgeSettings


def description(model: ModelSettings) -> str:
    """What the agent reads of an expert that is this model."""
    expert = ExpertSettings(model, strength="knows all", latency_s=96, price=PriceSettings(1.25, 10))
    [card] = expert_cards(ExpertsSettings(expert_1=expert), {"expert-1": model})
    text: str = call_expert_schema([card])["function"]["description"]
    return text.rsplit("- ", 1)[1]


CHECKPOINTS = ("/ckpts/run7/", "/ckpts/run7", "ckpts/run8", "./run9", "../run9", "~/run9", "Qwen/Qwen3-32B", None)


@pytest.mark.parametrize("provider", [Provider.vllm, Provider.simulated])
def test_an_expert_on_a_pool_is_known_by_its_pool_wherever_its_checkpoint_lies(provider: Provider):
    told = {
        description(ModelSettings(provider, model, pool=PoolSettings("qwen3-32b", model=model)))
        for model in CHECKPOINTS
    }
    price = "Price per million tokens: $1.25 input, $10 output. Typical latency: 96 s."
    assert told == {f"expert-1 (qwen3-32b): knows all. {price}"}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-5", "expert-1 (gpt-5): "),
        ("nebius/Qwen/Qwen3-32B-fast", "expert-1 (Qwen3-32B-fast): "),
        ("/ckpts/run7/", "expert-1: "),
        ("./run7", "expert-1: "),
        ("~/run7", "expert-1: "),
        ("hosted_vllm//ckpts/run7", "expert-1: "),
        (None, "expert-1: "),
    ],
)
def test_an_expert_at_a_provider_is_known_by_its_id_unless_that_is_a_path(model: str | None, told: str):
    for provider in (Provider.openai, Provider.litellm):
        assert description(ModelSettings(provider, model)).startswith(told)


def test_who_plays_which_role_and_under_which_name_its_calls_are_kept() -> None:
    agent, user = ModelSettings(model="a", base_url="http://x"), ModelSettings(model="u", base_url="http://x")
    judge = JudgeSettings(model="j", base_url="http://x")
    pool = ModelSettings(Provider.vllm, None, pool=PoolSettings("own"))
    experts = ExpertsSettings(expert_2=ExpertSettings(pool))
    roles = choose_roles(agent, AgentMode.llm, user, judge, experts, judged=True)
    assert roles == Roles(agent, user, judge, {"expert-2": pool})
    assert choose_roles(agent, AgentMode.solo, user, judge, experts, judged=False) == Roles(
        agent, None, None, {"expert-2": pool}
    )
    off = JudgeSettings(model="j", enabled=False)
    assert choose_roles(agent, AgentMode.llm, user, off, ExpertsSettings(), judged=True).judge is None
    asked: list[str] = []

    def router(name: str) -> Any:
        asked.append(name)
        return object()

    async def names() -> dict[str, str]:
        async with HttpPool() as http:
            clients = make_clients(roles, router, http, PriceTable({}), None)
            return {role: client.name for role, client in clients.by_name().items()}

    assert asyncio.run(names()) == {"agent": "a", "user": "u", "expert-2": "expert-2", "judge": "j"}
    assert asked == ["own"]
