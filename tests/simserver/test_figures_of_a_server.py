"""What a simulated server counts and draws, to the number: metrics, tokens, latencies."""

from __future__ import annotations

import logging
from math import sqrt
from typing import Any

import pytest

from tau2_fleet.simserver.completions import _log_spoilt
from tau2_fleet.simserver.latency import Distribution, LatencyProfile
from tau2_fleet.simserver.prefix_cache import PrefixCache, parts_of
from tau2_fleet.simserver.prometheus import Histogram, ServerMetrics
from tau2_fleet.simserver.tokens import message_tokens, prompt_tokens, text_tokens


def test_a_histogram_counts_up_to_each_bound_and_sums() -> None:
    seconds = Histogram()
    for value in (0.001, 0.002, 2.5, 700.0):
        seconds.add(value)
    head, *buckets, total, count = seconds.lines("wait", 'engine="0"')
    assert head == "# TYPE wait histogram"
    counts = {line.split('"')[3]: int(line.split()[-1]) for line in buckets}
    assert [counts[bound] for bound in ("0.001", "0.005", "1.0", "2.5", "640.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert (total, count) == ('wait_sum{engine="0"} 702.503', 'wait_count{engine="0"} 4')


def test_the_metrics_are_those_of_vllm_by_name() -> None:
    metrics = ServerMetrics(running=1, waiting=2, kv_use=0.5, prompt_tokens=30, cached_tokens=4, generation_tokens=5)
    metrics.prefix_queries, metrics.prefix_hits, metrics.preemptions = 6, 7, 8
    metrics.finished.update(stop=1, length=2, abort=3)
    metrics.parsed.update(auto=4, named=5)
    text = metrics.text('a "model"\n').decode()
    assert "cache_config_info" not in text, "there is no engine"
    about = 'engine="0",model_name="a \\"model\\"\\n"'
    for name, value in {
        "num_requests_running": 1, "num_requests_waiting": 2, "kv_cache_usage_perc": 0.5, "num_preemptions_total": 8,
        "prefix_cache_queries_total": 6, "prefix_cache_hits_total": 7, "prompt_tokens_total": 30,
        "prompt_tokens_cached_total": 4, "generation_tokens_total": 5,
    }.items():  # fmt: skip
        assert f"vllm:{name}{{{about}}} {float(value)}\n" in text
    for reason, count in {"stop": 1, "length": 2, "abort": 3}.items():
        assert f'request_success_total{{{about},finished_reason="{reason}"}} {float(count)}\n' in text
    for mode, count in {"auto": 4, "required": 0, "named": 5}.items():
        assert f'invocations_total{{{about},mode="{mode}",outcome="success"}} {float(count)}\n' in text
    assert f"time_to_first_token_seconds_count{{{about}}} 0\n" in text
    assert f"e2e_request_latency_seconds_count{{{about}}} 0\n" in text
    metrics.kv_blocks, metrics.block_tokens = 9, 16
    told = metrics.text("m").decode()
    assert 'cache_config_info{engine="0",model_name="m",block_size="16",num_gpu_blocks="9"} 1.0\n' in told


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"content": "x" * 8}, 6),
        ({"content": "x" * 9}, 7),
        ({}, 4),
        ({"content": None, "tool_calls": []}, 4),
        ({"content": [{"a": 1}]}, 4 + 3),
        ({"content": "xx", "tool_calls": [{"a": 1}]}, 4 + 3),
    ],
)
def test_four_characters_are_a_token_and_a_message_has_a_frame(message: dict[str, Any], tokens: int) -> None:
    assert message_tokens(message) == tokens
    assert prompt_tokens([message, message], []) == 2 * tokens
    assert prompt_tokens([message], [{"name": "abcde"}]) == tokens + 4
    assert [text_tokens(text) for text in ("", "abcd", "abcde")] == [0, 1, 2]


def test_a_prompt_is_known_by_its_messages_and_the_tools_before_them() -> None:
    one, two = {"content": "x" * 8}, {"content": "y" * 12}
    parts = parts_of([one, two], [{"name": "abcde"}])
    assert [tokens for _, tokens in parts] == [4 + 6, 7], "tools stand before the first message"
    assert parts_of([one, two], [])[1][0] != parts[1][0]
    assert parts_of([one], [{"name": "abcde"}]) == parts[:1]
    cache = PrefixCache(13)
    assert (cache.look_up([one, two], []), cache.used_tokens) == (0, 13)
    assert cache.look_up([one, two], []) == 12, "the last token is computed"
    assert cache.look_up([two], []) == 0
    assert cache.used_tokens == 13, "what was used least recently has gone: the end of the first prompt"
    assert cache.look_up([one], []) == 5


def test_between_its_quantiles_a_latency_is_straight_in_its_logarithm() -> None:
    spread = Distribution((0.0, 0.5, 1.0), (1.0, 4.0, 9.0))
    assert [spread.at(quantile) for quantile in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 4.0, 9.0])
    assert [spread.at(quantile) for quantile in (0.25, 0.75)] == pytest.approx([2.0, 6.0])
    inner = Distribution((0.25, 0.75), (1.0, 4.0))
    assert [inner.at(quantile) for quantile in (0.0, 1.0)] == pytest.approx([0.5, 8.0]), "beyond the outer ones, too"
    profile = LatencyProfile({"agent": spread, "expert": inner})
    assert profile.seconds("expert-2", 0.5) == pytest.approx(sqrt(4.0))
    assert profile.seconds("user", 0.5) == pytest.approx(4.0)


def test_a_spoilt_reply_is_told_with_whose_it_was(caplog: pytest.LogCaptureFixture) -> None:
    session: Any = type("OfAgent", (), {"simulation": "retail/1/0", "role": "agent"})()
    with caplog.at_level(logging.INFO):
        _log_spoilt("cut", session)
        _log_spoilt("cut", None)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["cut retail/1/0/agent", "cut "]
