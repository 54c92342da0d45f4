"""One model as the program sees it: attempts, waiting, limits, cost and time around a provider's backend."""

from __future__ import annotations

import dataclasses
import logging

from tau2_fleet.llm.allowance import PaidModel
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.context import Context
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.examine import check_whole, estimated_usage, examine
from tau2_fleet.llm.failure_lines import FailureLines
from tau2_fleet.llm.failures import RETRIED, WAITED_OUT, Failure, FailureCause, brief, short
from tau2_fleet.llm.http import current_call
from tau2_fleet.llm.inside_errors import error_in_text
from tau2_fleet.llm.limiter import Limiter, bearable
from tau2_fleet.llm.outage import Outage
from tau2_fleet.llm.pause import Pause
from tau2_fleet.llm.prices import FREE, Price
from tau2_fleet.llm.prompt_growth import PromptGrowth
from tau2_fleet.llm.provider import Backend, ProviderAnswer
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import ThinkingHistory
from tau2_fleet.llm.thinking_history import ThinkingMemory, wants_thinking
from tau2_fleet.llm.timebox import CallTime, Timebox
from tau2_fleet.llm.types import (
    CallStats,
    ChatRequest,
    ContextOverflowError,
    DeadlineError,
    FatalModelError,
    ModelError,
    Reply,
)

_MOST_RECUTS = 8
"""Times that one request is cut further after its server found it too long."""
_LOOKS_PER_OUTAGE = 1 / 6
"""Longest wait between two looks whether a refusal has passed, as a share of the time after which it is general."""

log = logging.getLogger(__name__)


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
        outage_s: float = 60.0,
        thinking_history: ThinkingHistory = ThinkingHistory.none,
        asked_as: str | None = None,
        key_env: str | None = None,
        paid: PaidModel | None = None,
        pause: Pause | None = None,
    ) -> None:
        """`asked_as` is the name that the provider knows; `key_env` names the variable that holds the key.

        `paid` sets money aside for every request, where that is limited.
        """
        self.name = name
        self._backend = backend
        self._limiter = limiter
        self._pause = pause or Pause()
        self._outage = Outage(name, clock, outage_s)
        self._context = context
        self._keeps_thinking = thinking_history != ThinkingHistory.none
        self._thinking = ThinkingMemory(thinking_history)
        self._growth = PromptGrowth()
        self._clock = clock
        self._retry = retry
        self._price = price
        self._call_timeout_s = call_timeout_s
        self._lines = FailureLines(name, asked_as, key_env)
        self._paid = paid

    async def complete(self, request: ChatRequest) -> Reply:
        """Ask for the next message; see `ChatModel.complete`."""
        clock = self._clock
        stats = CallStats(model=self.name, call_type=self._backend.call_type, started=clock.time())
        began = clock.monotonic()
        deadline = began + self._call_timeout_s if self._call_timeout_s is not None else None
        if request.deadline is not None:
            deadline = request.deadline if deadline is None else min(deadline, request.deadline)
        try:
            if self._outage.open is not None:
                raise FatalModelError(self._outage.open)
            async with Timebox(None if deadline is None else deadline - began) as scope:
                token = current_call.set(stats)
                try:
                    time = CallTime(clock, scope, deadline)
                    if self._paid is None:
                        answer = await self._answer(request, stats, time)
                    else:
                        async with self._paid.paying(request, stats):
                            answer = await self._answer(request, stats, time)
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
        if self._keeps_thinking:
            self._thinking.remember(request.session, answer.thought, answer.text, seen.text, seen.tool_calls)
        if seen.conditions:
            stats.conditions += seen.conditions
            stats.details |= seen.details
        return Reply(seen.text, seen.tool_calls, stats, seen.thinking, answer.token_ids)

    def _with_stats(self, error: ModelError, stats: CallStats, began: float) -> ModelError:
        stats.duration_ms = 1000 * (self._clock.monotonic() - began)
        stats.error = str(error)
        error.stats = stats
        return error

    async def _answer(self, request: ChatRequest, stats: CallStats, time: CallTime) -> ProviderAnswer:
        """Attempts until one succeeds or no further one makes sense."""
        if time.left_s <= 0:
            raise DeadlineError(f"no time is left to ask {self.name}")
        asked, filled = request, self._thinking.fills
        if self._keeps_thinking:
            request = dataclasses.replace(asked, messages=self._thinking.restored(asked))
        sent = await self._fitted(request, stats)
        began = self._clock.monotonic()
        avoid, recut = None, 0
        while True:
            try:
                answer = await self._attempt(sent, stats, time, avoid)
            except Failure as failure:
                if failure.condition is not None:
                    stats.note(failure.condition, str(failure))
                if failure.usage is not None:
                    self._spend(stats, ProviderAnswer(None, usage=failure.usage))
                if failure.too_long is not None:
                    self._context.refused(sent, failure.too_long)
                    before, recut = len(sent.messages), recut + 1
                    sent = await self._fitted(request, stats)
                    if recut <= _MOST_RECUTS and len(sent.messages) < before:
                        continue
                if not filled and self._misses_thinking(failure):
                    self._thinking.fill()
                    filled = True
                    request = dataclasses.replace(asked, messages=self._thinking.restored(asked))
                    sent = await self._fitted(request, stats)
                    continue
                if not self._is_asked_again(failure, stats, began):
                    raise self._given_up(failure, sent, stats) from failure
                avoid = failure.endpoint
                await self._back_off(failure, sent, stats, time)
            else:
                self._outage.replied(sent)
                if answer.usage_missing:
                    answer = dataclasses.replace(answer, usage=estimated_usage(sent, answer))
                else:
                    self._context.learn(sent, answer.usage)
                self._spend(stats, answer)
                self._note_cuts(sent, stats, answer)
                return answer

    def _note_cuts(self, sent: ChatRequest, stats: CallStats, answer: ProviderAnswer) -> None:
        """Whether turns were left out of the prompt: by us, or by its server without a word."""
        told = None
        if not answer.usage_missing and not self._keeps_thinking:  # prompts shrink where thinking is left out
            told = self._growth.cut_by_server(sent, answer.usage.input_tokens)
        if stats.trimmed_messages:
            told = f"{stats.trimmed_messages} messages"
        if told is not None:
            stats.note(Condition.history_cut, told)

    async def _fitted(self, request: ChatRequest, stats: CallStats) -> ChatRequest:
        """The request with as many of its messages as the model's context takes."""
        messages = await self._context.fit(request, self._backend)
        stats.trimmed_messages = len(request.messages) - len(messages)
        return dataclasses.replace(request, messages=messages) if stats.trimmed_messages else request

    def _misses_thinking(self, failure: Failure) -> bool:
        """Whether a server wants a field back that not every turn has."""
        refused = self._keeps_thinking and failure.cause is FailureCause.refused
        return refused and "reasoning_content" in str(failure) and wants_thinking(str(failure))

    def _is_asked_again(self, failure: Failure, stats: CallStats, began: float) -> bool:
        """Whether a further attempt makes sense, the time that is left apart."""
        if failure.cause in WAITED_OUT:
            if self._outage.closed(self._line(failure, stats)):
                return False
            lasted = self._clock.monotonic() - began >= self._outage.outage_s
            return stats.attempts < self._retry.attempts or not lasted
        return failure.cause in RETRIED and stats.attempts < self._retry.attempts

    async def _attempt(
        self, request: ChatRequest, stats: CallStats, time: CallTime, avoid: Endpoint | None
    ) -> ProviderAnswer:
        """One attempt in a slot of the provider's limit."""
        waiting_since = self._clock.monotonic()
        try:
            await self._pause.wait(time.box)
            generation = await self._limiter.acquire(time.left_s)
            while self._pause.on:  # it has begun while this call waited for its slot
                self._limiter.release(replied=False)
                await self._pause.wait(time.box)
                generation = await self._limiter.acquire(time.left_s)
        finally:
            stats.queue_ms += 1000 * (self._clock.monotonic() - waiting_since)
        replied = False
        try:
            if self._outage.open is not None:
                raise FatalModelError(self._outage.open)
            stats.attempts += 1
            answer = await self._backend.ask(request, stats, avoid)
            replied = True
            if not answer.tool_calls:
                check_whole((), error_in_text(answer.text), answer.usage)
            return answer
        except Failure as failure:
            if failure.cause is FailureCause.busy:
                self._limiter.throttle(generation, self._asked_wait_s(failure, time))
            raise
        except (ModelError, TimeoutError):
            raise
        except Exception as error:
            # whatever an answer holds, it is this call's failure and nobody else's
            log.debug("an answer to %s could not be read", request.session, exc_info=True)
            told = short(f"{type(error).__name__}: {brief(str(error))}")
            raise Failure(FailureCause.unusable, f"the answer could not be read: {told}") from error
        finally:
            self._limiter.release(replied=replied)

    def _asked_wait_s(self, failure: Failure, time: CallTime) -> float | None:
        """Seconds that the server asked this call to wait, as far as the call can bear it."""
        asked_s = failure.asked_wait_s(self._clock.time())
        return None if asked_s is None else bearable(asked_s, time.left_s)

    async def _back_off(self, failure: Failure, request: ChatRequest, stats: CallStats, time: CallTime) -> None:
        """Wait before the next attempt.

        Raises:
            ModelError: the time would be over before it; a `DeadlineError` unless the server refused the call.
        """
        now = self._clock.monotonic()
        wait_s = self._retry.wait_s(stats.attempts, self._asked_wait_s(failure, time), self._clock.random)
        if failure.cause in WAITED_OUT:
            wait_s = min(wait_s, max(self._retry.first_s, _LOOKS_PER_OUTAGE * self._outage.outage_s))
        if wait_s >= time.left_s:
            if failure.cause in WAITED_OUT:
                raise self._given_up(failure, request, stats) from failure
            left_s = max(0.0, time.left_s)
            raise DeadlineError(
                f"{self.name}: to be asked again in {wait_s:.0f} s, but {left_s:.0f} s are left ({failure})"
            ) from failure
        try:
            await self._clock.sleep(wait_s)
        finally:
            stats.queue_ms += 1000 * (self._clock.monotonic() - now)

    def _given_up(self, failure: Failure, request: ChatRequest, stats: CallStats) -> ModelError:
        """What callers are told of the last failure."""
        if failure.cause is FailureCause.overflow:
            return ContextOverflowError(f"the conversation is too long for {self.name} ({failure})")
        line = self._line(failure, stats)
        return FatalModelError(line) if self._outage.failed(failure, request, line) else ModelError(line)

    def _line(self, failure: Failure, stats: CallStats) -> str:
        thinking = failure.cause is FailureCause.refused and wants_thinking(str(failure))
        return self._lines.line(failure, stats.attempts, self._thinking.advice if thinking else "")

    def _spend(self, stats: CallStats, answer: ProviderAnswer) -> None:
        stats.usage.add(answer.usage)
        stats.cost_usd += self._price.cost_usd(answer.usage, answer.cache_write_tokens)

    def end_session(self, session: str) -> None:
        """See `ChatModel.end_session`."""
        self._context.forget(session)
        self._growth.forget(session)
        self._thinking.forget(session)
        self._backend.end_session(session)

    async def close(self) -> None:
        await self._backend.close()
