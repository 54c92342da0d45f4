"""Counters of a simulated server and their Prometheus text in vLLM's metric names."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0)


class Histogram:
    """Seconds, in fixed buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: str) -> list[str]:
        lines = [f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {self._sum}", f"{name}_count{{{labels}}} {total}"]


@dataclass(slots=True)
class ServerMetrics:
    """What has happened since the server started; tokens, requests, seconds."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    """Running requests sent back to the queue for want of memory."""
    kv_blocks: int = 0
    """Blocks of the engine's memory; 0: there is no engine."""
    block_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    """Requests by the engine's reason: stop (also after tool calls), length, abort (the client left)."""
    parsed: Counter[str] = field(default_factory=Counter)
    """Tool-call parser runs by mode."""
    first_token_s: Histogram = field(default_factory=Histogram)
    request_s: Histogram = field(default_factory=Histogram)

    def text(self, model: str) -> bytes:
        """The page of `/metrics`."""
        quoted = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        labels = f'engine="0",model_name="{quoted}"'
        lines: list[str] = []

        def add(kind: str, name: str, values: dict[str, float]) -> None:
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{{{labels}{extra}}} {float(value)}" for extra, value in values.items())

        add("gauge", "vllm:num_requests_running", {"": self.running})
        add("gauge", "vllm:num_requests_waiting", {"": self.waiting})
        add("gauge", "vllm:kv_cache_usage_perc", {"": self.kv_use})
        if self.kv_blocks:
            about = f',block_size="{self.block_tokens}",num_gpu_blocks="{self.kv_blocks}"'
            add("gauge", "vllm:cache_config_info", {about: 1.0})
        add("counter", "vllm:num_preemptions_total", {"": self.preemptions})
        add("counter", "vllm:prefix_cache_queries_total", {"": self.prefix_queries})
        add("counter", "vllm:prefix_cache_hits_total", {"": self.prefix_hits})
        add("counter", "vllm:prompt_tokens_total", {"": self.prompt_tokens})
        add("counter", "vllm:prompt_tokens_cached_total", {"": self.cached_tokens})
        add("counter", "vllm:generation_tokens_total", {"": self.generation_tokens})
        add(
            "counter",
            "vllm:request_success_total",
            {f',finished_reason="{reason}"': self.finished[reason] for reason in ("stop", "length", "abort")},
        )
        add(
            "counter",
            "vllm:tool_call_parser_invocations_total",
            {f',mode="{mode}",outcome="success"': self.parsed[mode] for mode in ("auto", "required", "named")},
        )
        lines += self.first_token_s.lines("vllm:time_to_first_token_seconds", labels)
        lines += self.request_s.lines("vllm:e2e_request_latency_seconds", labels)
        return ("\n".join(lines) + "\n").encode()
