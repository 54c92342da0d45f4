"""A model of an inference engine as vLLM is one, on a clock of its own: no event loop, no waiting.

`engine.py` plays it in real time for a simulated server; `benchmarks/busy` in virtual time for a search. An engine
works in steps. In each, every request that writes gets one token, and what is left of the step's budget of tokens
reads prompts, in pieces (chunked prefill: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with
Sarathi-Serve", OSDI 2024). A step takes

    1/decode_tokens_per_s x (1 + decode_slowdown x (requests - 1) + context_slowdown x thousands of tokens of context)
    + tokens of prompts read / prefill_tokens_per_s

which is the roofline of a memory-bound decoder (weights once a step, keys and values of every context; Pope et al.,
"Efficiently Scaling Transformer Inference", MLSys 2023) beside its compute-bound reading. Contexts grow by blocks;
where none is free the request that came last goes back to the queue, loses what it has computed, and computes it again.
Steps in which nothing but writing happens are taken together in closed form, so that a request costs a few events.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tau2_fleet.fleet.settings import EngineSettings
from tau2_fleet.simserver.kv_pool import Hold, KvPool, Prompt
from tau2_fleet.simserver.writers import Writers

_ROUNDING_S = 1e-9


class GenerationPhase(Enum):
    """Where a request is."""

    waiting = 1
    reading = 2
    """Its prompt is computed."""
    writing = 3
    over = 4


@dataclass(slots=True, eq=False)
class Generation:
    """A request in the engine."""

    prompt: Prompt
    output_tokens: int
    done: Callable[[], None] = lambda: None
    """For who plays the model; the model itself does not call it."""
    prompt_tokens: int = field(init=False)
    cached_tokens: int = 0
    """Of the prompt, found in memory when the request was first taken up."""
    phase: GenerationPhase = GenerationPhase.waiting
    first_token_at: float = 0.0
    """On the model's clock; 0 before the prompt was read."""
    preemptions: int = 0
    _taken_up: bool = False
    _written: int = 0
    _to_read: int = 0
    _began_at: int = 0
    """The count of steps at which it had `_written` tokens."""
    _hold: Hold | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = sum(tokens for _, tokens in self.prompt)
        self.output_tokens = max(1, self.output_tokens)


@dataclass(slots=True)
class EngineCounts:
    """What has happened since the start."""

    preemptions: int = 0
    prefix_queries: int = 0
    """Tokens of prompts taken up; `prefix_hits` of them were in memory."""
    prefix_hits: int = 0
    busy_s: float = 0.0


class EngineModel:
    """One engine. Times are seconds on the caller's clock and must not run backwards."""

    def __init__(self, options: EngineSettings, now_s: float = 0.0) -> None:
        self.counts = EngineCounts()
        self._max_requests = options.max_batch
        self._budget = options.batched_tokens
        self._step_s = 1 / options.decode_tokens_per_s / options.speed
        self._request_s = self._step_s * options.decode_slowdown
        self._context_s = self._step_s * options.context_slowdown / 1000
        self._read_s = 1 / options.prefill_tokens_per_s / options.speed
        self._pool = KvPool(options.kv_tokens, options.block_tokens)
        self._block = options.block_tokens
        self._now_s = now_s
        """The beginning of the steps under way, or the end of the last."""
        self._waiting: deque[Generation] = deque()
        self._running: dict[Generation, None] = {}
        """In the order in which they were taken up."""
        self._reading: dict[Generation, None] = {}
        self._ends: list[tuple[int, int, Generation]] = []
        """Those that write, by the count of steps at which they are done."""
        self._order = 0
        self._writers = Writers(options.block_tokens)
        self._under_way = 0
        """Steps planned together; 0: the engine is idle."""
        self._read_now: list[tuple[Generation, int]] = []
        self._ends_s = now_s

    # What a caller sees

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_use(self) -> float:
        """Share of the memory that running requests hold, 0 to 1."""
        return self._pool.use

    @property
    def kv_blocks(self) -> int:
        return self._pool.blocks

    @property
    def next_event_s(self) -> float | None:
        """When something happens by itself; None: the engine is idle."""
        return self._ends_s if self._under_way else None

    def submit(self, request: Generation, now_s: float) -> None:
        """A request comes; what is finished by then must have been taken by `advance`."""
        self._waiting.append(request)
        if not self._under_way:
            self._now_s = max(now_s, self._now_s)
            self._plan()
        elif len(self._waiting) == 1 and len(self._running) < self._max_requests:
            self._shorten(now_s)

    def cancel(self, request: Generation, now_s: float) -> None:
        """Its client has left: it holds nothing any more. Nothing happens for one that is over."""
        if request.phase is GenerationPhase.over:
            return
        if request.phase is GenerationPhase.waiting:
            self._waiting.remove(request)
        else:
            self._shorten(now_s)
            self._take_out(request)
        request.phase = GenerationPhase.over

    def advance(self, now_s: float) -> list[Generation]:
        """Let time pass; the requests that are done, in order."""
        done: list[Generation] = []
        while self._under_way and self._ends_s <= now_s + _ROUNDING_S:
            self._finish_steps(done)
            self._plan()
        return done

    # Steps

    def _plan(self) -> None:
        """Decide what the next steps do, at the end of those before."""
        self._under_way = 0
        self._read_now = []
        while True:
            preempted = self._make_room()
            self._share_out(admit=not preempted)
            if self._running or not self._waiting:
                break
        if not self._running:
            return
        if self._read_now:
            self._under_way = 1
            read = sum(tokens for _, tokens in self._read_now)
            self._ends_s = self._now_s + self._duration_s(1, len(self._read_now), read)
            return
        self._under_way = max(1, min(self._first_end() - self._writers.steps, self._writers.steps_in(self._pool.free)))
        self._ends_s = self._now_s + self._duration_s(self._under_way)

    def _first_end(self) -> int:
        """The count of steps at which the first of the writers is done."""
        while True:
            end, _, request = self._ends[0]
            if request.phase is GenerationPhase.writing and end == self._end_of(request):
                return end
            heapq.heappop(self._ends)

    def _make_room(self) -> bool:
        """Send back who came last until every writer has room for one more token."""
        preempted = False
        while self._pool.free < self._writers.blocks_for(1) and len(self._running) > 1:
            victim = next(reversed(self._running))
            self._take_out(victim)
            victim.phase = GenerationPhase.waiting
            victim.preemptions += 1
            self.counts.preemptions += 1
            self._waiting.appendleft(victim)
            preempted = True
        return preempted

    def _share_out(self, *, admit: bool) -> None:
        """Give what the writers leave of the step's tokens to prompts: those begun first, then those that wait."""
        left = self._budget - self._writers.count
        for request in self._reading:
            if left <= 0:
                return
            left -= self._read(request, left)
        while admit and left > 0 and self._waiting and len(self._running) < self._max_requests:
            request = self._waiting[0]
            context = request.prompt_tokens + request._written
            room = self._pool.free - self._writers.blocks_for(1)
            if self._running and self._pool.needed(request.prompt, context) > room:
                return
            self._waiting.popleft()
            # The last token is always computed: it is the one whose successor is asked for.
            known = min(self._pool.known_tokens(request.prompt), context - 1)
            request._hold = self._pool.hold(request.prompt, context)
            request._to_read = context - known
            request.phase = GenerationPhase.reading
            if not request._taken_up:
                request._taken_up = True
                request.cached_tokens = known
                self.counts.prefix_queries += request.prompt_tokens
                self.counts.prefix_hits += known
            self._running[request] = None
            self._reading[request] = None
            left -= self._read(request, left)

    def _read(self, request: Generation, most: int) -> int:
        tokens = min(request._to_read, most)
        self._read_now.append((request, tokens))
        return tokens

    def _duration_s(self, steps: int, readers: int = 0, read_tokens: int = 0) -> float:
        batch = self._writers.count + readers
        context = steps * self._writers.context + self._writers.count * steps * (steps - 1) / 2
        one_s = self._step_s + self._request_s * (batch - 1)
        return steps * one_s + self._context_s * context + self._read_s * read_tokens

    def _shorten(self, now_s: float) -> None:
        """End the steps under way with the one that `now_s` falls into: somebody may join after it."""
        if self._under_way < 2:
            return
        passed_s = max(0.0, now_s - self._now_s)
        # The duration of n steps is quadratic in n.
        a = self._context_s * self._writers.count / 2
        b = self._duration_s(1)
        b -= a
        steps = passed_s / b if a <= 0 else (math.sqrt(b * b + 4 * a * passed_s) - b) / (2 * a)
        self._under_way = max(1, min(self._under_way, math.ceil(steps - 1e-6)))
        self._ends_s = self._now_s + self._duration_s(self._under_way)

    def _finish_steps(self, done: list[Generation]) -> None:
        steps = self._under_way
        self.counts.busy_s += self._ends_s - self._now_s
        self._now_s = self._ends_s
        self._pool.take(self._writers.blocks_for(steps))
        self._writers.take(steps)
        for request, tokens in self._read_now:
            if request.phase is not GenerationPhase.reading:
                continue  # cancelled meanwhile
            request._to_read -= tokens
            if not request._to_read:
                self._begin_writing(request)
        while self._ends and self._ends[0][0] <= self._writers.steps:
            end, _, request = heapq.heappop(self._ends)
            if request.phase is GenerationPhase.writing and end == self._end_of(request):
                self._end(request, done)

    def _begin_writing(self, request: Generation) -> None:
        """The step that read the last of the prompt has written a token, too."""
        del self._reading[request]
        request.phase = GenerationPhase.writing
        request._began_at = self._writers.steps - 1
        context = request.prompt_tokens + request._written
        self._writers.join(context)
        if not request.first_token_at:
            request.first_token_at = self._now_s
        self._order += 1
        heapq.heappush(self._ends, (self._end_of(request), self._order, request))

    def _end(self, request: Generation, done: list[Generation]) -> None:
        self._take_out(request)
        request.phase = GenerationPhase.over
        done.append(request)

    def _end_of(self, request: Generation) -> int:
        return request._began_at + request.output_tokens - request._written

    def _take_out(self, request: Generation) -> None:
        """It runs no more; what it has written is kept for when it runs again."""
        del self._running[request]
        hold = request._hold
        assert hold is not None
        if request.phase is GenerationPhase.reading:
            del self._reading[request]
        else:
            begun = request.prompt_tokens + request._written
            context = begun + self._writers.steps - request._began_at - 1
            self._writers.leave(context)
            hold.own_blocks += -(-context // self._block) - -(-begun // self._block)
            request._written += self._writers.steps - request._began_at
        self._pool.release(hold)
        request._hold = None
