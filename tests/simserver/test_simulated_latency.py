"""Latency profiles: the quantiles of a profile come out again, the same for a session and turn in every process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.latency import load_profile
from tests.simserver.process import running


def test_the_profile_of_the_real_fleet_has_its_quantiles() -> None:
    profile = load_profile("fleet-h100")
    expected = {"agent": {0.5: 4.0, 0.9: 9.7, 0.99: 70.0}, "user": {0.5: 9.6, 0.9: 23.4}}
    for role, quantiles in expected.items():
        draws = sorted(profile.seconds(role, chance(1, "test", role, number)) for number in range(20_000))
        for quantile, seconds in quantiles.items():
            assert profile.seconds(role, quantile) == pytest.approx(seconds)
            assert draws[int(quantile * len(draws))] == pytest.approx(seconds, rel=0.15)
        assert 0.3 * quantiles[0.5] < draws[0] < quantiles[0.5]
    assert profile.seconds("expert-2", 0.5) == 4.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("roles: {user: {0.5: 1, 0.9: 2}}", "`agent` is missing"),
        ("roles: {agent: {0.5: 1}}", "two quantiles"),
        ("roles: {agent: {0.5: 2, 0.9: 1}}", "must not fall"),
        ("roles: {agent: {0.5: 0, 0.9: 1}}", "above 0"),
        ("roles: [1]", "expected roles"),
        ("[", "not YAML"),
    ],
)
def test_a_wrong_profile_is_named_with_its_fault(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_profile(str(tmp_path / "p.yaml"))
    with pytest.raises(UserError, match=r"there: .*fleet-h100"):
        load_profile("nothing")


@pytest.mark.alone
def test_answers_take_the_time_of_the_profile_times_the_scale(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("roles: {agent: {0.0: 2.0, 1.0: 2.1}, user: {0.0: 0.2, 1.0: 0.2}}")
    hello = [{"role": "user", "content": "Hello"}]
    with running(tmp_path, latency=str(tmp_path / "p.yaml"), latency_scale=0.2) as server:
        for role, least, most in (("agent", 0.4, 1.9), ("user", 0.04, 0.4)):
            started = time.monotonic()
            server.ask(f"abcdef01/mock/x/0/{role}", hello, [])
            assert least <= time.monotonic() - started < most
