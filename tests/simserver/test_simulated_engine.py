"""The engine's time and the prefix cache: what they model, seen from a client and in the metrics."""

from __future__ import annotations

import asyncio
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from benchmarks.virtual_time import run_virtually
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.settings import EngineSettings, SimulatedSettings
from tau2_fleet.simserver.engine import Engine
from tau2_fleet.simserver.engine_model import EngineModel, Generation, GenerationPhase
from tau2_fleet.simserver.options import parse_options
from tau2_fleet.simserver.prefix_cache import PrefixCache
from tau2_fleet.simserver.prometheus import ServerMetrics
from tests.simserver.process import MODEL, RunningServer, running
from tests.waiting import CEILING_S

SYSTEM = {"role": "system", "content": "policy " * 300}


def message(number: int, length: int = 400) -> dict[str, Any]:
    return {"role": "user", "content": f"{number} " + "x" * length}


def test_the_cache_answers_the_part_that_two_prompts_share() -> None:
    cache = PrefixCache(1_000_000)
    tools = [{"name": "t", "description": "d" * 400}]
    first = [SYSTEM, message(1)]
    assert cache.look_up(first, tools) == 0
    grown = cache.look_up([*first, message(2), message(3)], tools)
    other = cache.look_up([SYSTEM, message(9)], tools)
    assert grown > other > 500
    assert cache.look_up([SYSTEM, message(9)], []) == 0
    assert cache.look_up([message(5)], []) == 0


def test_a_prompt_known_as_a_whole_still_computes_its_last_token() -> None:
    cache = PrefixCache(1_000_000)
    cache.look_up([SYSTEM], [])
    assert cache.look_up([SYSTEM], []) == cache.used_tokens - 1


def test_a_full_cache_forgets_the_oldest_conversation_and_keeps_what_all_share() -> None:
    cache = PrefixCache(2_000)
    for number in range(50):
        cached = cache.look_up([SYSTEM, message(number), message(-number)], [])
        assert (cached > 500) == (number > 0)
        assert cache.used_tokens <= 2_000
    assert cache.look_up([SYSTEM, message(49), message(-49)], []) > cache.look_up([SYSTEM, message(0), message(0)], [])


def prompt(tokens: int, name: int = 0) -> list[tuple[int, int]]:
    return [(hash((name, tokens)), tokens)]


def played(model: EngineModel, arrivals: list[tuple[float, Generation]]) -> list[float]:
    """Seconds at which these requests are done."""
    ends: dict[Generation, float] = {}
    coming = sorted(arrivals, key=lambda pair: pair[0])
    while coming or model.next_event_s is not None:
        event_s = model.next_event_s
        if event_s is None or (coming and coming[0][0] < event_s):
            now_s, request = coming.pop(0)
            ends |= dict.fromkeys(model.advance(now_s), now_s)
            model.submit(request, now_s)
        else:
            ends |= dict.fromkeys(model.advance(event_s), event_s)
    return [ends[request] for _, request in arrivals]


def engine_time_s(options: EngineSettings, jobs: list[tuple[int, int]]) -> list[float]:
    """Seconds after which jobs (prompt, output tokens) that come together are done."""
    arrivals = [(0.0, Generation(prompt(job[0], number), job[1])) for number, job in enumerate(jobs)]
    return played(EngineModel(options), arrivals)


def test_a_request_alone_takes_its_prefill_and_its_decoding() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=10_000, decode_tokens_per_s=500)
    assert engine_time_s(options, [(2_000, 100)])[0] == pytest.approx(0.4)
    assert engine_time_s(EngineSettings(on=True, speed=10), [(2_000, 100)])[0] == pytest.approx(
        engine_time_s(EngineSettings(on=True), [(2_000, 100)])[0] / 10
    )


def test_what_is_in_memory_is_not_read_again_but_for_the_last_token() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=10_000, decode_tokens_per_s=1e6)
    model = EngineModel(options)
    shared, own = (1, 1_600), (2, 400)
    first, again, other = Generation([shared, own], 1), Generation([shared, own], 1), Generation([shared, (3, 160)], 1)
    assert played(model, [(0.0, first)])[0] == pytest.approx(0.2, abs=0.001)
    assert played(model, [(1.0, again)])[0] == pytest.approx(1.0001, abs=0.0001)
    assert played(model, [(2.0, other)])[0] == pytest.approx(2.016, abs=0.0001)
    assert [one.cached_tokens for one in (first, again, other)] == [0, 1_999, 1_600]
    assert (model.counts.prefix_queries, model.counts.prefix_hits) == (5_760, 3_599)


def test_a_larger_batch_slows_each_request_but_not_the_whole() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=500, decode_slowdown=0.1)
    assert engine_time_s(options, [(10, 100)] * 11) == pytest.approx([0.4] * 11, abs=0.003)
    assert engine_time_s(options, [(10, 50), (10, 100)]) == pytest.approx([0.11, 0.21], abs=0.003)


def test_long_contexts_slow_the_step_and_prompts_that_are_read_hold_up_who_writes() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=1000, decode_slowdown=0)
    options.context_slowdown = 0.5
    # A context of 2,000 to 2,100 tokens makes a step of 1 ms take 2 ms.
    assert engine_time_s(options, [(2_000, 100)])[0] == pytest.approx(0.1 * (1 + 0.5 * 2.05), rel=0.01)
    options = EngineSettings(on=True, prefill_tokens_per_s=10_000, decode_tokens_per_s=1000, decode_slowdown=0)
    writer, reader = Generation(prompt(10), 100), Generation(prompt(5_000, 1), 1)
    ends = played(EngineModel(options), [(0.0, writer), (0.0205, reader)])
    assert ends == pytest.approx([0.6, 0.522], abs=0.002)
    options.batched_tokens = 501
    late = played(EngineModel(options), [(0.0, Generation(prompt(10), 100)), (0.0205, Generation(prompt(5_000, 1), 1))])
    assert late[1] == pytest.approx(0.531, abs=0.002)


def test_beyond_its_batch_and_its_room_requests_wait_in_order() -> None:
    limits: tuple[tuple[dict[str, Any], int, int], ...] = (({"max_batch": 2}, 10, 100), ({"kv_tokens": 480}, 192, 16))
    for limit, size, output in limits:
        options = EngineSettings(on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=1000, decode_slowdown=0)
        ends = engine_time_s(replace(options, **limit), [(size, output)] * 5)
        assert [round(1000 * end / output) for end in ends] == [1, 1, 2, 2, 3]


def test_who_came_last_is_sent_back_for_want_of_memory_and_computes_again() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=1000, decode_slowdown=0)
    options.kv_tokens = 320
    model = EngineModel(options)
    requests = [Generation(prompt(16, number), 200) for number in range(3)]
    ends = played(model, [(0.0, request) for request in requests])
    assert model.counts.preemptions == sum(request.preemptions for request in requests) > 0
    assert requests[0].preemptions == 0
    assert ends == sorted(ends)
    # What was written is not written again, only read: two of 200 tokens after the first, side by side in part.
    assert 0.3 < ends[-1] < 0.45
    assert (model.running, model.waiting, model.kv_use) == (0, 0, 0.0)


def test_the_least_recently_used_prefixes_leave_first_and_shared_ones_are_held_once() -> None:
    model = EngineModel(EngineSettings(on=True, kv_tokens=1_600))
    shared = (1, 800)
    together = [Generation([shared, (10 + number, 160)], 10) for number in range(4)]
    for request in together:
        model.submit(request, 0.0)
    model.advance(0.1)
    assert model.running == 4
    assert 0.90 <= model.kv_use <= 0.94  # 50 blocks of the shared part, once, and 10 or 11 for each
    played(model, [])
    for number in range(10):
        request = Generation([shared, (100 + number, 160)], 1)
        played(model, [(10.0 + number, request)])
        assert request.cached_tokens == 800
    early, late = Generation([shared, (10, 160)], 1), Generation([shared, (109, 160)], 1)
    played(model, [(30.0, late), (40.0, early)])
    assert (late.cached_tokens, early.cached_tokens) == (959, 800)


class StepByStep(EngineModel):
    """The same without closed forms."""

    def _plan(self) -> None:
        super()._plan()
        if self._under_way:
            self._under_way = 1
            read = sum(tokens for _, tokens in self._read_now)
            self._ends_s = self._now_s + self._duration_s(1, len(self._read_now), read)


@pytest.mark.parametrize("seed", range(6))
def test_steps_taken_together_end_as_steps_taken_one_by_one(seed: int) -> None:
    draw = random.Random(seed)
    options = EngineSettings(on=True, kv_tokens=draw.choice((800, 3_000)), max_batch=6, batched_tokens=256)
    options.context_slowdown = 0.1
    arrivals = [(draw.uniform(0, 3), [(0, 100), (n, draw.randint(1, 300))], draw.randint(1, 250)) for n in range(1, 30)]
    runs = []
    for kind in (EngineModel, StepByStep):
        model = kind(options)
        ends = played(model, [(when, Generation(parts, output)) for when, parts, output in arrivals])
        assert model.kv_use == 0.0
        runs.append((ends, model.counts.preemptions, model.counts.prefix_hits))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-6)
    assert runs[0][1:] == runs[1][1:]


def test_a_request_whose_client_leaves_makes_room_for_the_next_at_every_stage() -> None:
    async def run() -> None:
        metrics = ServerMetrics()
        engine = Engine(
            EngineSettings(
                on=True, prefill_tokens_per_s=1000, decode_tokens_per_s=100, max_batch=2, batched_tokens=128
            ),
            metrics,
        )
        finished: list[str] = []
        reached = asyncio.Event()

        def done(name: str) -> None:
            finished.append(name)
            reached.set()

        def job(name: str, tokens: int, output: int) -> Generation:
            return Generation(prompt(tokens, hash(name)), output, lambda: done(name))

        decoding, prefilling, waiting = job("a", 1, 1000), job("b", 1000, 1000), job("c", 1, 1000)
        for one in (job("first", 1, 2), decoding, prefilling, waiting, job("d", 1, 5)):
            engine.submit(one)
        await asyncio.wait_for(reached.wait(), 5)
        reached.clear()
        assert [one.phase for one in (decoding, prefilling, waiting)] == [
            GenerationPhase.writing,
            GenerationPhase.reading,
            GenerationPhase.waiting,
        ]
        assert (metrics.running, metrics.waiting) == (2, 2)
        for one in (waiting, prefilling, decoding, decoding):
            engine.cancel(one)
        await asyncio.wait_for(reached.wait(), 5)
        assert finished == ["first", "d"]
        assert (metrics.running, metrics.waiting, metrics.kv_use) == (0, 0, 0.0)

    run_virtually(run())


@pytest.mark.parametrize("options", [{"prefix_cache_tokens": 100_000}, {"engine": {"on": True, "speed": 100}}])
def test_cached_tokens_of_usage_and_of_the_metrics_agree(tmp_path: Path, options: dict[str, Any]) -> None:
    with running(tmp_path, **options) as server:
        history: list[dict[str, Any]] = [SYSTEM]
        asked = cached = 0
        for number in range(4):
            history.append(message(number))
            usage = server.json("POST", "/v1/chat/completions", {"model": MODEL, "messages": history})["usage"]
            asked += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
        metrics = server.metrics()
        assert metrics["vllm:prefix_cache_queries_total"] == metrics["vllm:prompt_tokens_total"] == asked
        assert metrics["vllm:prefix_cache_hits_total"] == metrics["vllm:prompt_tokens_cached_total"] == cached
        assert 0.5 < cached / asked < 1


def test_a_server_with_an_engine_answers_in_its_time_and_shows_what_waits(tmp_path: Path) -> None:
    engine = {"on": True, "prefill_tokens_per_s": 1e9, "decode_tokens_per_s": 100, "max_batch": 2, "output_tokens": 40}
    with running(tmp_path, engine=engine) as server:

        def ask(number: int) -> tuple[int, float]:
            started = time.monotonic()
            connection = HTTPConnection("127.0.0.1", server.port, timeout=CEILING_S)
            headers = {"Authorization": f"Bearer {server.key}", "X-Session-ID": f"abcdef01/shop/x/{number}/agent"}
            connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [message(1)]}), headers)
            usage = json.loads(connection.getresponse().read())["usage"]
            connection.close()
            return usage["completion_tokens"], time.monotonic() - started

        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask, number) for number in range(6)]
            assert any(busy(server) for _ in iter(lambda: all(one.done() for one in asked), True))
            answers = [one.result() for one in asked]
        assert len({tokens for tokens, _ in answers}) > 2
        assert all(took >= 0.98 * tokens / 100 for tokens, took in answers)
        metrics = server.metrics()
        assert metrics["vllm:generation_tokens_total"] == sum(tokens for tokens, _ in answers)
        assert metrics["vllm:num_requests_running"] == metrics["vllm:num_requests_waiting"] == 0


def busy(server: RunningServer) -> bool:
    metrics = server.metrics()
    return metrics["vllm:num_requests_running"] == 2 and 0 < metrics["vllm:num_requests_waiting"] <= 4


def test_options_reach_into_their_parts_and_are_checked_there() -> None:
    options = parse_options('{"latency": null, "engine": {"on": true, "max_batch": 3}, "faults": {"rate": 0.1}}')
    assert isinstance(options, SimulatedSettings)
    assert (options.latency, options.engine.max_batch, options.faults.rate) == (None, 3, 0.1)
    for text, words in (
        ('{"engine": {"pace": 1}}', "engine has an unknown key 'pace'"),
        ('{"faults": {"rate": "much"}}', "faults rate has the wrong type"),
        (
            '{"faults": {"kinds": ["earthquake"]}}',
            "faults kinds: 'earthquake' is not a valid FaultKind; there are rate_limited",
        ),
        ('{"faults": 3}', "must be a JSON object"),
        ('{"latency": "x", "engine": {"on": true}}', "give one of them"),
        ('{"faults": {"kinds": {"hang": 1}}}', "faults kinds has the wrong type"),
        ("{", "is not JSON"),
    ):
        with pytest.raises(UserError, match=words):
            parse_options(text)
