"""How long a real engine would take: prompts one after the other, answers side by side, slower the more there are.

A model of an inference server, not a measurement: prefill is a queue at `prefill_tokens_per_s`; each
running request decodes at `decode_tokens_per_s / (1 + decode_slowdown * (batch - 1))`. The work done per
request is one virtual clock for all that decode, so that an event costs O(log batch).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tau2_fleet.fleet.settings import EngineSettings
from tau2_fleet.simserver.prometheus import ServerMetrics


class GenerationPhase(Enum):
    """Where a job is."""

    waiting = 1
    prefilling = 2
    decoding = 3
    over = 4


@dataclass(slots=True, eq=False)
class Generation:
    """A request in the engine; `done` is called when its answer is complete."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    done: Callable[[], None]
    first_token_at: float = 0.0
    """On the loop's clock; 0 before the prefill was over."""
    stage: GenerationPhase = GenerationPhase.waiting

    @property
    def room(self) -> int:
        return self.prompt_tokens + self.output_tokens


class Engine:
    """One replica's engine; bound to the running event loop."""

    def __init__(self, options: EngineSettings, metrics: ServerMetrics) -> None:
        self._options = options
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Generation] = deque()
        self._admitted = 0
        self._room_used = 0
        self._prefill_free_at = 0.0
        self._decoding: list[tuple[float, int, Generation]] = []
        self._batch = 0
        self._virtual = 0.0
        self._virtual_at = self._loop.time()
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, job: Generation) -> None:
        """Begin when there is room; jobs begin in the order in which they came."""
        self._waiting.append(job)
        self._admit()

    def cancel(self, job: Generation) -> None:
        """Its client has left: free what it holds; nothing happens after its end."""
        if job.stage == GenerationPhase.over:
            return
        if job.stage == GenerationPhase.waiting:
            self._waiting.remove(job)
        elif job.stage == GenerationPhase.decoding:
            self._advance()
            self._batch -= 1
            self._leave(job)
        else:
            self._leave(job)
        job.stage = GenerationPhase.over
        self._admit()
        self._wake_at_next_end()

    def _admit(self) -> None:
        options = self._options
        while self._waiting and self._admitted < options.max_batch:
            job = self._waiting[0]
            if self._admitted and self._room_used + job.room > options.kv_tokens:
                break
            self._waiting.popleft()
            job.stage = GenerationPhase.prefilling
            self._admitted += 1
            self._room_used += job.room
            computed = job.prompt_tokens - job.cached_tokens
            begin = max(self._loop.time(), self._prefill_free_at)
            self._prefill_free_at = begin + computed / options.prefill_tokens_per_s
            self._loop.call_at(self._prefill_free_at, self._decode, job)
        self._report()

    def _decode(self, job: Generation) -> None:
        if job.stage != GenerationPhase.prefilling:
            return
        self._advance()
        job.stage = GenerationPhase.decoding
        job.first_token_at = self._loop.time()
        self._batch += 1
        self._order += 1
        heapq.heappush(self._decoding, (self._virtual + job.output_tokens, self._order, job))
        self._wake_at_next_end()

    def _speed(self) -> float:
        """Tokens per second of each decoding request."""
        options = self._options
        return options.decode_tokens_per_s / (1 + options.decode_slowdown * max(0, self._batch - 1))

    def _advance(self) -> None:
        now = self._loop.time()
        self._virtual += (now - self._virtual_at) * self._speed()
        self._virtual_at = now

    def _wake_at_next_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._decoding and self._decoding[0][2].stage == GenerationPhase.over:
            heapq.heappop(self._decoding)
        if self._decoding:
            left = max(0.0, self._decoding[0][0] - self._virtual)
            self._timer = self._loop.call_at(self._virtual_at + left / self._speed(), self._end)

    def _end(self) -> None:
        self._timer = None
        self._advance()
        ended = []
        # A hundredth of a token of grace: the timer may be early by the rounding of the clock.
        while self._decoding and self._decoding[0][0] <= self._virtual + 0.01:
            job = heapq.heappop(self._decoding)[2]
            if job.stage == GenerationPhase.decoding:
                self._batch -= 1
                self._leave(job)
                job.stage = GenerationPhase.over
                ended.append(job)
        self._admit()
        self._wake_at_next_end()
        for job in ended:
            job.done()

    def _leave(self, job: Generation) -> None:
        self._admitted -= 1
        self._room_used -= job.room

    def _report(self) -> None:
        self._metrics.running = self._admitted
        self._metrics.waiting = len(self._waiting)
        self._metrics.kv_use = min(1.0, self._room_used / self._options.kv_tokens)
