"""The metrics of each ready replica and the use of each GPU, handed to telemetry as events.

Every second while the metrics move, every five while they stand still or a fleet is large.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import aiohttp

from tau2_fleet.fleet.gpus import GpuReading
from tau2_fleet.fleet.probe import ProbeError, metrics_text
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.telemetry.events import GpuSample, ReplicaSample, emit

PERIOD_S = 5.0
_MOVING_S = 1.0
_REPLICAS_PER_S = 16
"""Read in a second at most, in the mean."""
_SLOWER = 1.5
_MOVED = 0.05
"""Share of the requests, or of the KV cache, that tells moving from standing still."""
_TIMEOUT_S = 4.0

_LINE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})? ([-+0-9.eEInfNa]+)", re.MULTILINE)
_NAMES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
}
"""Newest name first; 0.9 and 0.10 had `gpu_` in some."""
_CACHE = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(?<![a-z_])(block_size|num_gpu_blocks|kv_cache_size_tokens)="([0-9]+)"')
_SHARES = {"kv_use"}
"""Averaged over a server's engines; the others are summed."""


@dataclass(frozen=True, slots=True)
class ReplicaMetrics:
    """What a replica's /metrics said; 0 for what it does not know."""

    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0
    """Share of the KV cache, 0 to 1."""
    prefix_queries: float = 0.0
    """Tokens looked up in the prefix cache since the server's start; `prefix_hits` of them found."""
    prefix_hits: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    preemptions: float = 0.0
    kv_tokens: float = 0.0
    """Room of the KV cache, of all engines."""

    def moved_since(self, before: ReplicaMetrics) -> bool:
        """Whether the load is another than it was."""
        requests = before.running + before.waiting
        return (
            abs(self.running + self.waiting - requests) > _MOVED * max(requests, 1 / _MOVED)
            or abs(self.kv_use - before.kv_use) > _MOVED
            or self.preemptions != before.preemptions
        )

    def sample_of(self, replica: str) -> ReplicaSample:
        """The event that tells of them."""
        return ReplicaSample(replica, **asdict(self))


def parse_metrics(text: str) -> ReplicaMetrics:
    """Read vLLM's metrics, of any version since 0.9.2, from the Prometheus text form."""
    values: dict[str, list[float]] = {}
    for name, number in _LINE.findall(text):
        with contextlib.suppress(ValueError):  # letters of numbers, yet no number
            values.setdefault(name, []).append(float(number))
    found: dict[str, float] = {}
    for field_name, names in _NAMES.items():
        series = next((values[name] for name in names if name in values), [])
        if series:
            found[field_name] = sum(series) / (len(series) if field_name in _SHARES else 1)
    return ReplicaMetrics(kv_tokens=_kv_tokens(text), **found)


def _kv_tokens(text: str) -> float:
    """Where vLLM tells the tokens (since 0.26), each engine tells its own; they alone are right for a model whose
    layers differ in what they keep. Blocks are told of all engines together, by each of them.
    """
    told = [dict(_LABEL.findall(labels)) for labels in _CACHE.findall(text)]
    tokens = sum(float(about.get("kv_cache_size_tokens", 0)) for about in told)
    blocks = (float(about.get("block_size", 0)) * float(about.get("num_gpu_blocks", 0)) for about in told)
    return tokens or max(blocks, default=0.0)


def counted_tokens(text: str) -> float | None:
    """Tokens that a server has taken and made since its start; None when its metrics do not count any."""
    if not any(name in text for kind in ("prompt_tokens", "generation_tokens") for name in _NAMES[kind]):
        return None
    found = parse_metrics(text)
    return found.prompt_tokens + found.generation_tokens


async def sample_replicas(http: aiohttp.ClientSession, replicas: Iterable[Replica]) -> dict[str, ReplicaMetrics]:
    """Read the metrics of those in the routing once and emit them; what was read, by replica."""
    ready = [replica for replica in replicas if replica.endpoint is not None]
    read = await asyncio.gather(*(_sample(http, replica) for replica in ready))
    return {replica.name: found for replica, found in zip(ready, read, strict=True) if found is not None}


async def sample_forever(
    http: aiohttp.ClientSession,
    replicas: Callable[[], Iterable[Replica]],
    readings: Callable[[], list[tuple[str, GpuReading]]] | None,
) -> None:
    """Sample until cancelled; `readings`: each GPU's last, with its host."""
    loop = asyncio.get_running_loop()
    period_s = _MOVING_S
    before: dict[str, ReplicaMetrics] = {}
    gpus_at = next_time = loop.time()
    while True:
        found = await sample_replicas(http, replicas())
        if readings is not None and loop.time() >= gpus_at:
            gpus_at = loop.time() + PERIOD_S
            for host, gpu in await asyncio.to_thread(readings):
                emit(GpuSample(gpu.index, gpu.utilisation, gpu.memory_used, gpu.memory_total, host))
        period_s = next_period_s(period_s, before, found)
        before = found
        next_time = max(next_time + period_s, loop.time())
        await asyncio.sleep(next_time - loop.time())


def next_period_s(period_s: float, before: Mapping[str, ReplicaMetrics], found: Mapping[str, ReplicaMetrics]) -> float:
    """Seconds until the next sample, from the last two."""
    least_s = max(_MOVING_S, len(found) / _REPLICAS_PER_S)
    if before.keys() != found.keys() or any(found[name].moved_since(before[name]) for name in found):
        return min(PERIOD_S, least_s)
    return min(PERIOD_S, max(least_s, period_s * _SLOWER))


async def _sample(http: aiohttp.ClientSession, replica: Replica) -> ReplicaMetrics | None:
    try:
        text = await metrics_text(http, replica.base_url, replica.key, _TIMEOUT_S)
    except ProbeError:
        return None
    found = parse_metrics(text)
    emit(found.sample_of(replica.name))
    return found
