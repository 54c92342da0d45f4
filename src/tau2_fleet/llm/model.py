"""One model as the program sees it: attempts, waiting, limits, cost and time around a provider's backend."""

from __future__ import annotations

import asyncio
import dataclasses

from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.context import Context
from tau2_fleet.llm.examine import estimated_usage, examine
from tau2_fleet.llm.failures import RETRIED, Cause, Failure
from tau2_fleet.llm.http import current_call
from tau2_fleet.llm.limiter import Circuit, Limiter
from tau2_fleet.llm.prices import FREE, Price
from tau2_fleet.llm.provider import Backend, ProviderAnswer
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import (
    CallStats,
    ChatRequest,
    ContextOverflowError,
    DeadlineError,
    Endpoint,
    FatalModelError,
    ModelError,
    Reply,
)


class Model:
    """The `ChatModel` of every provider."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        *,
        limiter: Limiter,
        context: Context,
        clock: Clock,
        retry: RetryPolicy,
        price: Price = FREE,
        call_timeout_s: float | None = None,
        asked_as: str | None = None,
        key_env: str | None = None,
    ) -> None:
        """`asked_as` is the name that the provider knows; `key_env` names the variable that holds the key."""
        self.name = name
        self._backend = backend
        self._limiter = limiter
        self._circuit = Circuit()
        self._context = context
        self._clock = clock
        self._retry = retry
        self._price = price
        self._call_timeout_s = call_timeout_s
        self._asked_as = asked_as or name
        self._key = f"the key in {key_env}" if key_env else "the request's key, or its having none,"

    async def complete(self, request: ChatRequest) -> Reply:
        """Ask for the next message; see `ChatModel.complete`."""
        clock = self._clock
        stats = CallStats(model=self.name, call_type=self._backend.call_type, started=clock.time())
        began = clock.monotonic()
        deadline = began + self._call_timeout_s if self._call_timeout_s is not None else None
        if request.deadline is not None:
            deadline = request.deadline if deadline is None else min(deadline, request.deadline)
        try:
            if self._circuit.open is not None:
                raise FatalModelError(self._circuit.open)
            async with asyncio.timeout(None if deadline is None else deadline - began) as scope:
                token = current_call.set(stats)
                try:
                    answer = await self._answer(request, stats, deadline)
                finally:
                    current_call.reset(token)
        except ModelError as error:
            raise self._with_stats(error, stats, began) from error.__cause__
        except TimeoutError as error:
            if not scope.expired():
                raise
            told = f"{self.name} did not reply within {clock.monotonic() - began:.0f} s"
            raise self._with_stats(DeadlineError(told), stats, began) from error
        stats.duration_ms = 1000 * (clock.monotonic() - began)
        stats.finish_reason = answer.finish_reason
        stats.returned_model = answer.model
        seen = examine(answer, request.tools)
        if seen.conditions:
            stats.conditions += seen.conditions
            stats.details |= seen.details
        return Reply(text=seen.text, tool_calls=seen.tool_calls, stats=stats, thinking=seen.thinking)

    def _with_stats(self, error: ModelError, stats: CallStats, began: float) -> ModelError:
        stats.duration_ms = 1000 * (self._clock.monotonic() - began)
        stats.error = str(error)
        error.stats = stats
        return error

    async def _answer(self, request: ChatRequest, stats: CallStats, deadline: float | None) -> ProviderAnswer:
        """Attempts until one succeeds or no further one makes sense."""
        if deadline is not None and deadline <= self._clock.monotonic():
            raise DeadlineError(f"no time is left to ask {self.name}")
        messages = await self._context.fit(request, self._backend)
        if len(messages) != len(request.messages):
            stats.trimmed_messages = len(request.messages) - len(messages)
            request = dataclasses.replace(request, messages=messages)
        avoid = None
        while True:
            try:
                answer = await self._attempt(request, stats, avoid)
            except Failure as failure:
                if failure.condition is not None:
                    stats.note(failure.condition, str(failure))
                if failure.usage is not None:
                    self._spend(stats, ProviderAnswer(None, usage=failure.usage))
                if failure.cause not in RETRIED or stats.attempts >= self._retry.attempts:
                    raise self._given_up(failure, request, stats) from failure
                avoid = failure.endpoint
                await self._back_off(failure, stats, deadline)
            else:
                self._circuit.replied()
                if answer.usage_missing:
                    answer = dataclasses.replace(answer, usage=estimated_usage(request, answer))
                else:
                    self._context.learn(request, answer.usage)
                self._spend(stats, answer)
                if stats.trimmed_messages:
                    stats.note(Condition.history_cut, f"{stats.trimmed_messages} messages")
                return answer

    async def _attempt(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        """One attempt in a slot of the provider's limit."""
        waiting_since = self._clock.monotonic()
        try:
            generation = await self._limiter.acquire()
        finally:
            stats.queue_ms += 1000 * (self._clock.monotonic() - waiting_since)
        replied = False
        try:
            if self._circuit.open is not None:
                raise FatalModelError(self._circuit.open)
            stats.attempts += 1
            answer = await self._backend.ask(request, stats, avoid)
            replied = True
            return answer
        except Failure as failure:
            if failure.cause is Cause.busy:
                self._limiter.throttle(generation, failure.asked_wait_s(self._clock.time()))
            raise
        finally:
            self._limiter.release(replied=replied)

    async def _back_off(self, failure: Failure, stats: CallStats, deadline: float | None) -> None:
        """Wait before the next attempt.

        Raises:
            DeadlineError: the time would be over before it.
        """
        now = self._clock.monotonic()
        asked_s = failure.asked_wait_s(self._clock.time())
        wait_s = self._retry.wait_s(stats.attempts, asked_s, self._clock.random)
        if deadline is not None and now + wait_s >= deadline:
            raise DeadlineError(
                f"{self.name}: to be asked again in {wait_s:.0f} s, but {deadline - now:.0f} s are left ({failure})"
            ) from failure
        try:
            await self._clock.sleep(wait_s)
        finally:
            stats.queue_ms += 1000 * (self._clock.monotonic() - now)

    def _given_up(self, failure: Failure, request: ChatRequest, stats: CallStats) -> ModelError:
        """What callers are told of the last failure."""
        if failure.cause is Cause.overflow:
            self._context.refused(request, failure.context_tokens)
            return ContextOverflowError(f"the conversation is too long for {self.name} ({failure})")
        times = f" after {stats.attempts} attempts" if stats.attempts > 1 else ""
        line = f"{self.name}{times}: {failure}"
        if failure.cause is Cause.key:
            line = f"{self.name}: {self._key} is not accepted ({failure})"
        elif failure.cause is Cause.model:
            line = f"{self.name}: the server has no model {self._asked_as!r}, or another base_url ({failure})"
        elif failure.cause is Cause.credit:
            line = f"{self.name}: the account has no credit or quota left ({failure})"
        return FatalModelError(line) if self._circuit.failed(failure, line) else ModelError(line)

    def _spend(self, stats: CallStats, answer: ProviderAnswer) -> None:
        stats.usage.add(answer.usage)
        stats.cost_usd += self._price.cost_usd(answer.usage, answer.cache_write_tokens)

    def end_session(self, session: str) -> None:
        """See `ChatModel.end_session`."""
        self._context.forget(session)
        self._backend.end_session(session)

    async def close(self) -> None:
        await self._backend.close()
