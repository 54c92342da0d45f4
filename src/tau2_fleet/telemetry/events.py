"""Typed events of a run, and the bus that hands them to whoever listens (`emit`).

The ground floor of telemetry: every room may import this module, it imports none. An event is a
small dataclass; what is done with it (file, log line, trace, W&B) is the recorder's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Self

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Which simulation an event belongs to; made once per simulation, read by every event in it.

    Two are equal only when they are one and the same, so that what is derived from it is found again at once.
    """

    domain: str
    task_id: str
    trial: int
    thread: int
    """A number of the simulation's own (the scripts had a thread each)."""

    @property
    def task(self) -> str:
        """`<domain>_<id>` as log lines have it."""
        return f"{self.domain}_{self.task_id}"


current_scope: ContextVar[Scope | None] = ContextVar("current_scope", default=None)


@dataclass(slots=True)
class Event:
    """The fields all events share. `time` is the epoch second at which the event was over."""

    scope: Scope | None = field(default_factory=current_scope.get, init=False)
    time: float = field(default_factory=time.time, init=False)


@dataclass(slots=True)
class LLMCall(Event):
    """One request to a model, all its attempts together. `type` is llm_call, expert_call, user_sim or evaluator."""

    type: str
    model: str
    call_type: str
    duration_ms: float
    queue_ms: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float
    attempts: int
    has_tool_calls: bool
    step: int | None = None
    replica: str | None = None
    expert: str | None = None
    error: str | None = None
    connect_ms: float | None = None
    """Part of `duration_ms` spent opening a connection; null when one was reused or nobody measured it."""


@dataclass(slots=True)
class ReplyCondition(Event):
    """Something was found in a reply (or on the way to it); one event each, after the `LLMCall` of that reply."""

    role: str
    """agent, user, judge or expert-N."""
    condition: str
    """A word of the closed set in `llm.conditions`."""
    model: str
    step: int | None = None
    replica: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class ToolCallDone(Event):
    """One live tool call (never one that a replay makes)."""

    function: str
    requestor: str
    duration_ms: float
    error: bool
    step: int | None = None


@dataclass(slots=True)
class StepComplete(Event):
    """One delivery between two roles."""

    total_duration_ms: float
    from_role: str
    to_role: str
    step: int


@dataclass(slots=True)
class RunMark(Event):
    """The run (or a resumed attempt of it) began or ended: the wall time between two marks is its own."""

    mark: str
    """`start` or `end`."""


@dataclass(slots=True)
class SimulationDone(Event):
    """A simulation has been stored."""

    termination_reason: str
    reward: float
    duration_ms: float
    cost_usd: float


@dataclass(slots=True)
class ReplicaState(Event):
    """A server changed its state: starting, ready, down, restarting, stopped, failed."""

    replica: str
    state: str
    pid: int | None = None
    port: int | None = None
    detail: str | None = None


@dataclass(slots=True)
class ReplicaSample(Event):
    """One reading of a replica's /metrics."""

    replica: str
    running: float
    waiting: float
    kv_use: float
    prefix_queries: float
    prefix_hits: float
    prompt_tokens: float
    generation_tokens: float
    preemptions: float = 0.0
    """Running requests sent back to the queue for want of memory, since the server's start."""
    kv_tokens: float = 0.0
    """Room of its KV cache; 0 when it does not say."""


@dataclass(slots=True)
class ConcurrencyChange(Event):
    """Another number of simulations may be in flight from now on."""

    limit: int
    before: int
    reason: str
    pool: str | None = None
    """The servers that decided it; null: no server did."""


@dataclass(slots=True)
class GpuSample(Event):
    """One reading of a GPU; memory in bytes, use 0 to 1."""

    gpu: int
    utilisation: float
    memory_used: int
    memory_total: int
    host: str = ""
    """The machine that it is in; empty: the runner's."""


Listener = Callable[[Event], None]
"""Hears every event at once."""
Writer = Callable[[Sequence[Event]], None]
"""Hears events in bulk, in order, a little later (see `buffer`)."""


class EventBus:
    """Who hears the events of one run; `in_use` makes it that of a block and of all that is begun there.

    It belongs to whoever opens the block: `run/experiment.py`, `run/serve.py`, a shard's process.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the returned function takes it away again."""
        self._listeners = (*self._listeners, listener)
        return lambda: self._leave_out(listener)

    def emit(self, event: Event) -> None:
        """Hand an event to every listener.

        One that fails is reported once and left out from then on: telemetry never ends a run.
        """
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                self._leave_out(listener)
                logger.warning("a listener of events failed and is left out from now on", exc_info=True)

    @contextmanager
    def in_use(self) -> Iterator[Self]:
        """Hear what is emitted in the block, in tasks that begin there, and in threads by `asyncio.to_thread`.

        Another thread that has the event loop do something must hand on a context of the block.
        """
        token = _bus.set(self)
        try:
            yield self
        finally:
            _bus.reset(token)

    def _leave_out(self, listener: Listener) -> None:
        self._listeners = tuple(other for other in self._listeners if other is not listener)


_bus: ContextVar[EventBus | None] = ContextVar("event_bus", default=None)


def bus_in_use() -> EventBus | None:
    """The bus of the block that this is called in."""
    return _bus.get()


def subscribe(listener: Listener) -> Callable[[], None]:
    """Add a listener to the bus in use; the returned function takes it away again.

    Raises:
        LookupError: there is no bus.
    """
    bus = _bus.get()
    if bus is None:
        raise LookupError("no event bus is in use here")
    return bus.subscribe(listener)


def emit(event: Event) -> None:
    """Hand an event to the bus in use; nothing happens where there is none."""
    bus = _bus.get()
    if bus is not None:
        bus.emit(event)
