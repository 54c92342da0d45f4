"""The engine of a simulated server: `engine_model.py` on the event loop's clock. Used by `completions.py`."""

from __future__ import annotations

import asyncio

from tau2_fleet.fleet.settings import EngineSettings
from tau2_fleet.simserver.engine_model import EngineModel, Generation
from tau2_fleet.simserver.prometheus import ServerMetrics


class Engine:
    """One replica's engine; bound to the running event loop."""

    def __init__(self, options: EngineSettings, metrics: ServerMetrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._model = EngineModel(options, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._at: float | None = None
        metrics.kv_blocks, metrics.block_tokens = self._model.kv_blocks, options.block_tokens

    def submit(self, job: Generation) -> None:
        """Begin when there is room; jobs begin in the order in which they came."""
        self._pass_time()
        self._model.submit(job, self._loop.time())
        self._go_on()

    def cancel(self, job: Generation) -> None:
        """Its client has left: free what it holds; nothing happens after its end."""
        self._pass_time()
        self._model.cancel(job, self._loop.time())
        self._go_on()

    def _wake(self) -> None:
        self._timer = self._at = None
        self._pass_time()
        self._go_on()

    def _pass_time(self) -> None:
        for job in self._model.advance(self._loop.time()):
            self._loop.call_soon(job.done)

    def _go_on(self) -> None:
        """Report, and wake when something happens next."""
        model, metrics, counts = self._model, self._metrics, self._model.counts
        metrics.running, metrics.waiting, metrics.kv_use = model.running, model.waiting, model.kv_use
        metrics.preemptions = counts.preemptions
        metrics.prefix_queries, metrics.prefix_hits = counts.prefix_queries, counts.prefix_hits
        if self._at != model.next_event_s:
            if self._timer is not None:
                self._timer.cancel()
            self._at = model.next_event_s
            self._timer = None if self._at is None else self._loop.call_at(self._at, self._wake)
