from __future__ import annotations

import pytest

from tau2_fleet.agents.expert_handoff import call_expert_schema
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, PriceSettings, Provider
from tau2_fleet.simulation.model_clients import expert_cards
from tau2_fleet.simulation.settings import ExpertSettings, ExpertsSettings


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
