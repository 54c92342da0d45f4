"""Every remote model that can be chosen says until when it can be asked; whoever asks for one that is gone is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest

from scripts.look_again import main as look_again
from tau2_fleet.config import agent_model, compose, load_config, model_settings
from tau2_fleet.config.lifetimes import (
    ended_models,
    gone_choice,
    known_lifetimes,
    looked_long_ago,
    refusal,
    replacement,
    warning,
)
from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.errors import UserError
from tau2_fleet.llm.lifetime import NONE_ANNOUNCED, ModelEnd, day, model_ends, own_name
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.simulation.model_clients import choose_roles

BEFORE, LAST, AFTER = date(2026, 11, 25), date(2026, 12, 11), date(2026, 12, 12)


@cache
def models(*overrides: str) -> dict[str, ModelSettings]:
    """By key, of a run with these overrides."""
    return model_settings(load_config(compose(["agent.model=org/model", *overrides])))


def remote_models() -> Iterator[tuple[str, ModelSettings]]:
    """Every file of a model, several to a configuration: composing one takes a quarter of a second."""
    groups = [[(group, choice) for choice in SHIPPED.choices(group)] for group in ("user_llm", "judge", "experts")]
    files = list(SHIPPED.choices("llm"))
    halves = [[("llm@user_llm", choice) for choice in files[::2]], [("llm@judge", choice) for choice in files[1::2]]]
    for chosen in [*zip_longest(*groups), *zip_longest(*halves)]:
        given = [f"{group}={choice}" for group, choice in filter(None, chosen)]
        found = models(*given, *(f"{_key(one)}.model=org/other" for one in given if one.endswith("=vllm")))
        for one in given:
            yield from ((one, model) for name, model in found.items() if name.startswith(_key(one)))


def _key(given: str) -> str:
    """Where a choice stands in the configuration."""
    return given.partition("=")[0].rpartition("@")[2]


def ends(*overrides: str) -> list[ModelEnd]:
    """Of the roles that a run with these overrides can call."""
    config = load_config(compose(["agent.model=org/model", *overrides]))
    roles = choose_roles(
        agent_model(config), config.agent.mode, config.user_llm, config.judge, config.experts, judged=True
    )
    return model_ends(roles.by_name(), known_lifetimes())


def test_every_remote_model_has_a_lifetime_with_a_day_of_looking_and_a_living_successor() -> None:
    seen = set()
    for where, model in remote_models():
        if model.provider.is_pool:
            assert model.lifetime is None, where
            continue
        life = model.lifetime
        assert life is not None, where
        assert own_name(life.model) == own_name(model.model), where
        assert day(str(life.looked)) >= BEFORE, where
        assert str(life.source).startswith("https://"), where
        if life.ends != NONE_ANNOUNCED:
            day(str(life.ends))
            successor = models(f"llm@user_llm={life.successor}")["user_llm"].lifetime
            assert successor is not None
            assert successor.ends == NONE_ANNOUNCED, where
        seen.add(where)
    assert len(seen) > 30


def test_the_plain_defaults_live() -> None:
    assert ends() == []
    assert ends("experiment=quick") == []


def test_the_scripts_setting_is_warned_of_until_its_models_end_and_refused_after_in_two_lines() -> None:
    found = ends("experiment=official")
    assert [(end.model, end.roles) for end in found] == [
        ("gpt-5", ("user", "expert-1", "judge")),
        ("gpt-5-mini", ("expert-2",)),
    ]
    assert all(end.is_near(BEFORE) and end.is_near(LAST) and not end.is_over(LAST) for end in found)
    assert not any(end.is_near(LAST - timedelta(days=61)) or end.is_near(AFTER) for end in found)
    assert all(end.is_over(AFTER) for end in found)
    first, second = refusal(found, "official").splitlines()
    assert first.startswith(
        "experiment=official cannot be run any longer: gpt-5 (user, expert-1, judge) ended on 2026-12-11"
    )
    assert "leave out experiment=official" in second
    assert "user_llm=gpt-6.1-sol experts=current judge=gpt-6.1-sol" in second
    assert "16 days" in warning(found[0], BEFORE)
    assert "user_llm=gpt-6.1-sol experts=current judge=gpt-6.1-sol" in warning(found[0], BEFORE)
    assert "today" in warning(found[1], LAST)


def test_the_ways_out_can_be_pasted() -> None:
    found = ends("experiment=official")
    pasted = [replacement(role, end.successor) for end in found for role in end.roles]
    assert ends("experiment=official", *dict.fromkeys(pasted)) == []
    leaderboard = ends("experiment=leaderboard")
    assert [end.ends for end in leaderboard] == [date(2027, 1, 14)] * 2
    pasted = [replacement(role, end.successor) for end in leaderboard for role in end.roles]
    assert ends("experiment=leaderboard", *pasted) == []
    assert replacement("user", "qwen3-32b-together") == "llm@user_llm=qwen3-32b-together"
    assert replacement("judge", "of-tomorrow") == "judge.model=of-tomorrow"


def test_a_lifetime_is_of_the_model_that_it_names_wherever_the_name_stands() -> None:
    """Another model under the same settings has its own; behind a URL of one's own nobody knows."""
    none = ["experts=none", "judge=none"]
    assert ends(*none, "user_llm=gpt-5", "user_llm.model=gpt-of-tomorrow") == []
    assert [end.model for end in ends(*none, "user_llm.model=gpt-4o-mini")] == ["gpt-4o-mini"]
    assert [end.model for end in ends(*none, "user_llm.model=openai/responses/gpt-5")] == ["gpt-5"]
    assert [end.ends for end in ends(*none, "user_llm.model=o4-mini")] == [date(2026, 10, 23)]
    assert ends(*none, "user_llm=gpt-5", "user_llm.base_url=http://127.0.0.1:1/v1") == []
    assert ends(*none, "user_llm=gpt-5", "user_llm.model=azure/gpt-5", "user_llm.provider=litellm") == []


def test_what_the_provider_says_now_counts_more_than_the_file() -> None:
    official = {"user": models("user_llm=gpt-5")["user_llm"], "judge": models("judge=gpt-6.1-sol")["judge"]}
    told: dict[str, date | None] = {"user": None, "judge": date(2027, 6, 1)}
    [end] = model_ends(official, known_lifetimes(), told)
    assert (end.model, end.ends, end.roles) == ("gpt-6.1-sol", date(2027, 6, 1), ("judge",))
    [end] = model_ends(official, known_lifetimes(), {})
    assert end.model == "gpt-5"


@pytest.mark.parametrize("asked", ["user_llm=o4-mini", "judge=o4-mini", "llm@user_llm=o4-mini"])
def test_a_name_that_is_gone_names_its_successor(asked: str) -> None:
    with pytest.raises(UserError, match=r"o4-mini ended on 2026-10-23\. Its successor: .*gpt-6\.1-terra") as caught:
        compose([asked])
    assert len(str(caught.value).splitlines()) == 1
    assert gone_choice("user_llm", "gpt5") is None


def test_models_that_are_gone_have_no_file_and_a_living_successor() -> None:
    for name, life in ended_models().items():
        assert day(str(life.ends)) < BEFORE
        assert not any(name in SHIPPED.choices(group) for group in ("llm", "user_llm", "judge"))
        assert life.successor in SHIPPED.choices("llm")


def test_a_day_that_is_none_is_refused() -> None:
    for key in ("ends", "looked"):
        with pytest.raises(UserError, match=f"lifetime.{key}=soon: must be a day such as 2026-12-11"):
            load_config(compose(["agent.model=org/model", f"user_llm.lifetime.{key}=soon"]))


def test_files_that_nobody_looked_at_for_long_are_named_and_nothing_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "conf" / "llm"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("lifetime: {looked: 2026-11-25}\n")
    (folder / "b.yaml").write_text("provider: vllm\n")
    day_180 = date(2026, 11, 25) + timedelta(days=180)
    assert looked_long_ago(day_180, {folder: "lifetime"}) == []
    assert looked_long_ago(day_180 + timedelta(days=1), {folder: "lifetime"}) == [
        "look again: conf/llm/a.yaml was compared 181 days ago"
    ]
    assert look_again(lambda: date(2028, 1, 1)) == 0
    told = capsys.readouterr().out
    assert "look again: conf/llm/gpt-6.1-sol.yaml" in told
    assert "look again: data/prices/openai.yaml" in told
    root = Path(__file__).resolve().parents[2]
    assert "scripts/look_again.py" in (root / "Makefile").read_text().split("lint:")[1].split("\n\n")[0]
    done = subprocess.run([sys.executable, "scripts/look_again.py"], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
