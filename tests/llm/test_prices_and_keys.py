"""Calls cost what the tables say, and keys are found by name and never shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.llm.keys import ApiKey, find_key, key_name
from tau2_fleet.llm.prices import Price, PriceTable
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, PriceSettings, Provider
from tau2_fleet.llm.types import Usage

ROOT = Path(__file__).resolve().parents[2]


def test_cached_and_cache_writing_input_have_prices_of_their_own() -> None:
    price = Price(input=3.0, output=15.0, cached_input=0.3, cache_write=3.75)
    usage = Usage(input_tokens=10_000, output_tokens=1000, cached_tokens=6000)
    expected = (2000 * 3.0 + 6000 * 0.3 + 2000 * 3.75 + 1000 * 15.0) / 1e6
    assert price.cost_usd(usage, cache_write_tokens=2000) == pytest.approx(expected)
    assert Price(input=3.0, output=15.0).cost_usd(usage) == pytest.approx((10_000 * 3.0 + 1000 * 15.0) / 1e6)


def test_the_project_s_own_tables_hold_the_models_of_the_experiments() -> None:
    table = PriceTable.load(ROOT / "data" / "prices")
    assert table.find("gpt-5") == Price(input=1.25, output=10.0, cached_input=0.125)
    assert table.find("gpt-5-2025-08-07") == table.find("gpt-5")
    assert table.find("openai/gpt-5-mini") == table.find("gpt-5-mini")
    assert table.find("gpt-5-unheard-of") is None


def test_a_fleet_of_one_s_own_is_free_unless_priced(caplog: pytest.LogCaptureFixture) -> None:
    table = PriceTable({"Qwen/Qwen3-32B": Price(9.0, 9.0)})
    pool = ModelSettings(Provider.vllm, "Qwen/Qwen3-32B", pool=PoolSettings())
    assert table.price_of(pool) == Price()
    pool.price = PriceSettings(0.1, 0.2, 0.05)
    assert table.price_of(pool) == Price(0.1, 0.2, 0.05)
    assert caplog.text == ""


def test_a_model_without_a_price_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert PriceTable().price_of(ModelSettings(model="brand-new")) == Price()
    assert "brand-new" in caplog.text


@pytest.mark.parametrize("content", ["[]", "models: 3", "models: {a: {inputs: 1}}", "models: {a: {input: -1}}", "a: ["])
def test_a_price_table_of_another_form_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "wrong.yaml").write_text(content)
    with pytest.raises(UserError, match=r"wrong\.yaml"):
        PriceTable.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (ModelSettings(Provider.openai, "gpt-5"), "OPENAI_API_KEY"),
        (ModelSettings(Provider.anthropic, "claude"), "ANTHROPIC_API_KEY"),
        (ModelSettings(Provider.litellm, "together_ai/Qwen/Qwen3-32B"), "TOGETHER_API_KEY"),
        (ModelSettings(Provider.litellm, "nebius/Qwen/Qwen3-32B"), "NEBIUS_API_KEY"),
        (ModelSettings(Provider.litellm, "someone/model"), None),
        (ModelSettings(Provider.vllm, "m"), None),
        (ModelSettings(Provider.openai, "m", base_url="http://127.0.0.1:1"), None),
        (ModelSettings(Provider.openai, "m", base_url="http://127.0.0.1:1", api_key_env="MINE"), "MINE"),
    ],
)
def test_each_provider_s_key_has_its_name(settings: ModelSettings, name: str | None) -> None:
    assert key_name(settings) == name
    assert find_key(settings, {}) is None
    if name:
        assert find_key(settings, {name: " "}) is None
        assert find_key(settings, {name: " value "}) == ApiKey(name, "value")


def test_a_key_does_not_show_itself() -> None:
    assert "secret" not in repr(ApiKey("MINE", "secret"))
