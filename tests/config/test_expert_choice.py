from __future__ import annotations

import pytest

from tau2_fleet.config import compose, differing_keys, load_config
from tau2_fleet.config.expert_choice import choose_experts
from tau2_fleet.llm.settings import Provider

OFFICIAL = ["agent.model=Qwen/Qwen3-8B", "experts=official"]


def test_with_its_key_the_first_model_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NEBIUS_API_KEY", "a-key-of-no-use")
    tree = compose(OFFICIAL)
    assert choose_experts(tree) == []
    assert load_config(tree).experts.members()["expert-3"].llm.provider is Provider.litellm


def test_without_its_key_the_fallback_takes_its_place_and_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NEBIUS_API_KEY", raising=False)
    tree = compose(OFFICIAL)
    (line,) = choose_experts(tree)
    assert "expert-3: NEBIUS_API_KEY is not set" in line
    chosen = load_config(tree).experts.members()["expert-3"].llm
    assert (chosen.provider, chosen.model) == (Provider.vllm, "Qwen/Qwen3-32B")
    assert choose_experts(tree) == []


def test_a_run_cannot_be_resumed_with_the_other_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NEBIUS_API_KEY", raising=False)
    without = compose(OFFICIAL)
    choose_experts(without)
    with_key = compose(OFFICIAL)
    assert "experts.expert_3" in differing_keys(load_config(without), load_config(with_key))
