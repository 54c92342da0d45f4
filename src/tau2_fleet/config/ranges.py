"""Which numbers the keys of the configuration can be; `validation` asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; `above`: `low` itself is out."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


_COUNT, _POSITIVE, _FROM_ZERO = Range(1), Range(0, above=True), Range(0)

_RANGES = {
    "agent.max_context_tokens": _COUNT,
    "server.num": Range(1, 4096),
    "server.start_port": Range(0, 65535),
    "server.tensor_parallel_size": _COUNT,
    "server.stagger_s": _FROM_ZERO,
    "server.ready_timeout_s": _POSITIVE,
    "server.min_ready": _COUNT,
    "server.simulated.latency_scale": _FROM_ZERO,
    "server.simulated.call_expert_rate": Range(0, 1),
    "server.simulated.max_model_len": _COUNT,
    "server.simulated.prefix_cache_tokens": _FROM_ZERO,
    "server.simulated.engine.prefill_tokens_per_s": _POSITIVE,
    "server.simulated.engine.decode_tokens_per_s": _POSITIVE,
    "server.simulated.engine.decode_slowdown": _FROM_ZERO,
    "server.simulated.engine.max_batch": _COUNT,
    "server.simulated.engine.kv_tokens": _COUNT,
    "server.simulated.engine.output_tokens": _FROM_ZERO,
    "server.simulated.faults.rate": Range(0, 1),
    "server.simulated.faults.most_in_a_row": _COUNT,
    "server.simulated.faults.slow_s": _FROM_ZERO,
    "server.simulated.faults.retry_after_s": _FROM_ZERO,
    "server.simulated.faults.gigantic_bytes": _COUNT,
    "limits.call_timeout_s": _POSITIVE,
    "limits.simulation_timeout_s": _POSITIVE,
    "limits.run_timeout_s": _POSITIVE,
    "limits.max_cost_usd": _POSITIVE,
    "limits.grace_s": _FROM_ZERO,
    "max_steps": _COUNT,
    "max_errors": _COUNT,
    "num_trials": Range(1, 10_000),
    "num_tasks": _COUNT,
    "max_concurrency": Range(1, 100_000),
    "seed": _FROM_ZERO,
}
_RANGES_BY_ENDING = {
    ".temperature": Range(0, 2),
    ".top_p": Range(0, 1, above=True),
    ".max_output_tokens": _COUNT,
    ".max_context_tokens": _COUNT,
    ".latency_s": _FROM_ZERO,
    ".price.input": _FROM_ZERO,
    ".price.output": _FROM_ZERO,
    ".price.cached_input": _FROM_ZERO,
    ".pool.num": _COUNT,
    ".pool.tensor_parallel_size": _COUNT,
}


def out_of_range(values: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of these keys whose number cannot be; null is not a number."""
    for key, value in values.items():
        span = _RANGES.get(key) or next((r for end, r in _RANGES_BY_ENDING.items() if key.endswith(end)), None)
        if span is not None and value is not None and not span.holds(value):
            yield f"{key}={value}: must be {span}"
