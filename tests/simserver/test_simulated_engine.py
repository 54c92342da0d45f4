"""The engine's time and the prefix cache: what they model, seen from a client and in the metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.settings import EngineSettings, SimulatedSettings
from tau2_fleet.simserver.engine import Engine, Generation, GenerationPhase
from tau2_fleet.simserver.options import parse_options
from tau2_fleet.simserver.prefix_cache import PrefixCache
from tau2_fleet.simserver.prometheus import ServerMetrics
from tests.simserver.process import MODEL, RunningServer, running

T = TypeVar("T")

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


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def engine_time_s(options: EngineSettings, jobs: list[tuple[int, int, int]]) -> list[float]:
    """Seconds at which jobs (prompt, cached, output tokens) that come together are done."""

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        engine = Engine(options, ServerMetrics())
        started = loop.time()
        ends = [0.0] * len(jobs)
        all_done = asyncio.Event()

        def done(number: int) -> None:
            ends[number] = loop.time() - started
            if all(ends):
                all_done.set()

        for number, job in enumerate(jobs):
            engine.submit(Generation(*job, lambda number=number: done(number)))  # type: ignore[misc]
        await asyncio.wait_for(all_done.wait(), 100)
        return ends

    return run_virtually(run())


def test_a_request_alone_takes_its_prefill_and_its_decoding() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=10_000, decode_tokens_per_s=500)
    assert engine_time_s(options, [(2_000, 0, 100)])[0] == pytest.approx(0.4, abs=0.001)
    assert engine_time_s(options, [(2_000, 1_900, 100)])[0] == pytest.approx(0.21, abs=0.001)


def test_a_larger_batch_slows_each_request_but_not_the_whole() -> None:
    options = EngineSettings(on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=500, decode_slowdown=0.1)
    ends = engine_time_s(options, [(10, 0, 100)] * 11)
    assert ends == pytest.approx([0.4] * 11, abs=0.001)
    assert engine_time_s(options, [(10, 0, 50), (10, 0, 100)]) == pytest.approx([0.11, 0.21], abs=0.001)


def test_beyond_its_batch_and_its_room_requests_wait_in_order() -> None:
    for limit in ({"max_batch": 2}, {"kv_tokens": 230}):
        options = EngineSettings(
            on=True, prefill_tokens_per_s=1e9, decode_tokens_per_s=1000, decode_slowdown=0, **limit
        )
        ends = engine_time_s(options, [(10, 0, 100)] * 5)
        assert ends == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3], abs=0.001)


def test_a_request_whose_client_leaves_makes_room_for_the_next_at_every_stage() -> None:
    async def run() -> None:
        metrics = ServerMetrics()
        engine = Engine(
            EngineSettings(on=True, prefill_tokens_per_s=1000, decode_tokens_per_s=100, max_batch=2), metrics
        )
        finished: list[str] = []
        reached = asyncio.Event()

        def done(name: str) -> None:
            finished.append(name)
            reached.set()

        def job(name: str, prompt: int, output: int) -> Generation:
            return Generation(prompt, 0, output, lambda: done(name))

        decoding, prefilling, waiting = job("a", 1, 1000), job("b", 1000, 1000), job("c", 1, 1000)
        for one in (job("first", 1, 1), decoding, prefilling, waiting, job("d", 1, 5)):
            engine.submit(one)
        await asyncio.wait_for(reached.wait(), 5)
        reached.clear()
        assert [one.stage for one in (decoding, prefilling, waiting)] == [
            GenerationPhase.decoding,
            GenerationPhase.prefilling,
            GenerationPhase.waiting,
        ]
        assert (metrics.running, metrics.waiting) == (2, 2)
        for one in (waiting, prefilling, decoding, decoding):
            engine.cancel(one)
        await asyncio.wait_for(reached.wait(), 5)
        assert finished == ["first", "d"]
        assert (metrics.running, metrics.waiting, metrics.kv_use) == (0, 0, 0.0)

    run_virtually(run())


def test_cached_tokens_of_usage_and_of_the_metrics_agree(tmp_path: Path) -> None:
    with running(tmp_path, prefix_cache_tokens=100_000) as server:
        history: list[dict[str, Any]] = [SYSTEM]
        prompt = cached = 0
        for number in range(4):
            history.append(message(number))
            usage = server.json("POST", "/v1/chat/completions", {"model": MODEL, "messages": history})["usage"]
            prompt += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
        metrics = server.metrics()
        assert metrics["vllm:prefix_cache_queries_total"] == metrics["vllm:prompt_tokens_total"] == prompt
        assert metrics["vllm:prefix_cache_hits_total"] == metrics["vllm:prompt_tokens_cached_total"] == cached
        assert 0.5 < cached / prompt < 1


def test_a_server_with_an_engine_answers_in_its_time_and_shows_what_waits(tmp_path: Path) -> None:
    engine = {"on": True, "prefill_tokens_per_s": 1e9, "decode_tokens_per_s": 100, "max_batch": 2, "output_tokens": 40}
    with running(tmp_path, engine=engine, prefix_cache_tokens=10_000) as server:

        def ask(number: int) -> tuple[int, float]:
            started = time.monotonic()
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            headers = {"Authorization": f"Bearer {server.key}", "X-Session-ID": f"abcdef01/shop/x/{number}/agent"}
            connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [message(1)]}), headers)
            usage = json.loads(connection.getresponse().read())["usage"]
            connection.close()
            return usage["completion_tokens"], time.monotonic() - started

        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask, number) for number in range(6)]
            assert any(busy(server) for _ in range(200))
            answers = [one.result() for one in asked]
        assert len({tokens for tokens, _ in answers}) > 2
        assert all(took >= 0.98 * tokens / 100 for tokens, took in answers)
        metrics = server.metrics()
        assert metrics["vllm:generation_tokens_total"] == sum(tokens for tokens, _ in answers)
        assert metrics["vllm:num_requests_running"] == metrics["vllm:num_requests_waiting"] == 0


def busy(server: RunningServer) -> bool:
    metrics = server.metrics()
    return (metrics["vllm:num_requests_running"], metrics["vllm:num_requests_waiting"]) == (2, 4)


def test_options_reach_into_their_parts_and_are_checked_there() -> None:
    options = parse_options('{"latency": null, "engine": {"on": true, "max_batch": 3}, "faults": {"rate": 0.1}}')
    assert isinstance(options, SimulatedSettings)
    assert (options.latency, options.engine.max_batch, options.faults.rate) == (None, 3, 0.1)
    for text, words in (
        ('{"engine": {"speed": 1}}', "engine has an unknown key 'speed'"),
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
