"""The running numbers of a run as they are charted in W&B: one snapshot every few seconds, made by the tracker."""

from __future__ import annotations

import time
from collections import deque

from tau2_fleet.telemetry.events import Event, GpuSample, LLMCall, StepComplete, ToolCallDone
from tau2_fleet.telemetry.quantiles import quantile
from tau2_fleet.telemetry.run_counters import RunCounters

_WINDOW = 5000
"""Durations kept per type between two snapshots."""


class LiveMetrics:
    """Adds to the counters what is measured between two snapshots: latencies, tokens per second, GPUs."""

    def __init__(self, counters: RunCounters) -> None:
        self._counters = counters
        self._durations: dict[str, deque[float]] = {}
        self._gpus: dict[tuple[str, int], GpuSample] = {}
        self._output_tokens = 0
        """Since the last snapshot; those of the counters begin with what earlier attempts left."""
        self._snapshot_at = time.monotonic()

    def listen(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, StepComplete):
            self._took("step_complete", event.total_duration_ms)
        elif isinstance(event, LLMCall):
            self._took(event.type, event.duration_ms)
            self._output_tokens += event.output_tokens
        elif isinstance(event, ToolCallDone):
            self._took("tool_call", event.duration_ms)
        elif isinstance(event, GpuSample):
            self._gpus[event.host, event.gpu] = event

    def _took(self, kind: str, duration_ms: float) -> None:
        durations = self._durations.get(kind)
        if durations is None:
            durations = self._durations[kind] = deque(maxlen=_WINDOW)
        durations.append(duration_ms)

    def snapshot(self) -> dict[str, float]:
        """The running numbers, as they are charted: totals, per domain, per replica, latencies since the last one."""
        counters, now = self._counters, time.monotonic()
        overall = counters.overall()
        values: dict[str, float] = {
            "finished": overall.done,
            "in_flight": overall.in_flight,
            "errors": overall.errors,
            "elapsed_s": counters.elapsed_s(),
            "cost_usd": counters.cost_usd,
            "tokens/input": counters.input_tokens,
            "tokens/output": counters.output_tokens,
        }
        passed_s = max(now - self._snapshot_at, 1e-3)
        values["tokens/output_per_s"] = self._output_tokens / passed_s
        self._snapshot_at, self._output_tokens = now, 0
        values.update(self._latencies())
        values.update(self._servers())
        for (role, condition), count in list(counters.replies.items()):
            values[f"replies/{role}/{condition}"] = count
        for name, domain in [*list(counters.domains.items()), ("all", overall)]:
            if domain.pass_1 is not None:
                values[f"pass_1/{name}"] = domain.pass_1
                values[f"done/{name}"] = domain.done
        return values

    def _latencies(self) -> dict[str, float]:
        values = {}
        for kind, durations in list(self._durations.items()):
            self._durations[kind] = deque(maxlen=_WINDOW)
            ordered = sorted(durations)
            if ordered:
                for percent in (50, 95, 99):
                    values[f"latency_ms/{kind}/p{percent}"] = quantile(ordered, percent / 100)
        return values

    def _servers(self) -> dict[str, float]:
        counters = self._counters
        values = {}
        for name, replica in list(counters.replicas.items()):
            values[f"replica/{name}/output_per_s"] = replica.tokens_per_s(counters.clock(), counters.began_s)
            if replica.running is not None and replica.waiting is not None and replica.kv_use is not None:
                values[f"replica/{name}/running"] = replica.running
                values[f"replica/{name}/waiting"] = replica.waiting
                values[f"replica/{name}/kv_use"] = replica.kv_use
        for (host, number), gpu in list(self._gpus.items()):
            name = f"gpu/{host}/{number}" if host else f"gpu/{number}"
            values[f"{name}/use"] = gpu.utilisation
            values[f"{name}/memory_gib"] = gpu.memory_used / 2**30
        return values
