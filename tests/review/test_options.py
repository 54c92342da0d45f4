"""The model that reviews, as `conf/llm` has it, whatever Hydra has done in this process before."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir

from tau2_fleet.errors import UserError
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.review.options import judge_model_settings


def test_a_model_can_be_had_while_hydra_is_in_use() -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        assert judge_model_settings("gpt-4.1").model == "gpt-4.1"
    assert judge_model_settings("gpt-4.1", ["temperature=0.25"]).temperature == 0.25


@pytest.mark.parametrize(
    ("name", "override", "told"),
    [
        ("gpt-4.11", "", "--judge gpt-4.11: there is no such model."),
        ("gpt-4.1", "temprature=1", "judge.temprature=1: there is no such key."),
        ("gpt-4.1", "temperature=-1", "judge.temperature=-1"),
        ("gpt-4.1", "temperature=warm", "judge."),
    ],
)
def test_what_is_wrong_with_a_model_is_named(name: str, override: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        judge_model_settings(name, [override] if override else [])
    assert str(caught.value).startswith(told.removesuffix("=1: there is no such key."))
