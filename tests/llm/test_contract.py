"""What holds for every provider, over a real socket: replies, failures, attempts and waiting times."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.llm.failures import Failure
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.litellm_any import LiteLLMAny
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.openai_compatible import OpenAICompatible
from tau2_fleet.llm.openai_responses import OpenAIResponses
from tau2_fleet.llm.provider import Backend
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import (
    CallStats,
    ChatMessage,
    ChatRequest,
    ContextOverflowError,
    DeadlineError,
    FatalModelError,
    ModelError,
    Reply,
    ToolCallText,
    ToolSet,
)
from tests.llm.dialects import ALL, LITELLM, OPENAI, RESPONSES, VLLM, Dialect
from tests.llm.serving import (
    Answer,
    Hand,
    OneByOne,
    Server,
    consistent,
    half,
    json_answer,
    raw_answer,
    reset,
    serving,
    silence,
    status_answer,
)

TOOLS = ToolSet.of(
    [
        {
            "type": "function",
            "function": {
                "name": "find_user",
                "description": "Finds a user",
                "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
            },
        }
    ]
)
HISTORY = (ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"))

every_provider = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


def request(**changed: Any) -> ChatRequest:
    return ChatRequest(**({"messages": HISTORY, "session": "run/retail/5/0/agent", "tools": TOOLS} | changed))


def talk(
    dialect: Dialect,
    *script: Answer,
    then: Callable[[Model, Server, Hand], Awaitable[Any]] | None = None,
    asked: ChatRequest | None = None,
    **changed: Any,
) -> tuple[Any, Server, Hand]:
    """Ask the model once (or do `then`) against a server with this script."""

    async def run() -> tuple[Any, Server, Hand]:
        hand = Hand()
        async with serving(*script) as server, HttpPool() as http:
            model = dialect.model_of(server, http, hand, **changed)
            try:
                result = await (then(model, server, hand) if then else model.complete(asked or request()))
            finally:
                await model.close()
            return result, server, hand

    return asyncio.run(run())


def failing(dialect: Dialect, *script: Answer, **changed: Any) -> tuple[ModelError, Server, Hand]:
    """Ask the model once and take the error."""

    async def ask(model: Model, server: Server, hand: Hand) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await model.complete(request())
        return caught.value

    return talk(dialect, *script, then=ask, **changed)


@every_provider
def test_a_text_comes_back_with_its_usage_cost_and_finish_reason(dialect: Dialect) -> None:
    reply, server, hand = talk(dialect, dialect.reply("Hi there", tokens=(1000, 50, 400)))
    assert (reply.text, reply.tool_calls, reply.thinking) == ("Hi there", (), None)
    usage = reply.stats.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (1000, 50, 400)
    assert reply.stats.cost_usd == pytest.approx((600 * 2.0 + 400 * 0.5 + 50 * 10.0) / 1e6)
    assert reply.stats.finish_reason in ("stop", "end_turn")
    assert (reply.stats.attempts, hand.waits) == (1, [])
    assert server.seen[0].headers["X-Session-ID"] == "run/retail/5/0/agent"


@every_provider
def test_parallel_tool_calls_come_back_in_order_with_their_ids(dialect: Dialect) -> None:
    calls = (ToolCallText("a1", "find_user", '{"id":"x"}'), ToolCallText("a2", "find_user", '{"id":"y"}'))
    reply, _, _ = talk(dialect, dialect.reply("One moment", calls))
    assert reply.text == "One moment"
    assert reply.tool_calls == calls


@every_provider
def test_malformed_arguments_stay_raw_text_and_travel_back_as_an_object(dialect: Dialect) -> None:
    wrong = ToolCallText("a1", "find_user", '{"id": oops')

    async def two_turns(model: Model, server: Server, hand: Hand) -> Reply:
        reply = await model.complete(request())
        said = ChatMessage("assistant", reply.text, reply.tool_calls)
        result = ChatMessage("tool", "Error", tool_call_id=reply.tool_calls[0].id)
        await model.complete(request(messages=(*HISTORY, said, result)))
        return reply

    reply, server, _ = talk(dialect, dialect.reply(None, (wrong,)), dialect.reply("Sorry"), then=two_turns)
    assert reply.tool_calls == (wrong,)
    assert "arguments_not_a_json_object" in str(server.seen[1].body)


@every_provider
def test_an_empty_reply_is_returned_as_it_is(dialect: Dialect) -> None:
    reply, server, _ = talk(dialect, dialect.reply(None))
    assert reply.empty
    assert len(server.seen) == 1


@every_provider
def test_thinking_is_kept_apart(dialect: Dialect) -> None:
    reply, _, _ = talk(dialect, dialect.reply("Yes", thinking="Is it so?"))
    assert (reply.text, reply.thinking) == ("Yes", "Is it so?")
    reply, _, _ = talk(dialect, dialect.reply("<think>Is it so?</think>\n\nYes"))
    assert (reply.text, reply.thinking) == ("Yes", "Is it so?")


@every_provider
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refused_requests_are_sent_once(dialect: Dialect, status: int) -> None:
    error, server, hand = failing(dialect, status_answer(status, "not this"), outage_s=0.0)
    assert len(server.seen) == 1
    assert hand.waits == []
    assert isinstance(error, FatalModelError) == (status != 400)
    assert error.stats is not None
    assert error.stats.attempts == 1
    assert error.stats.error == str(error)
    assert "\n" not in str(error)


@every_provider
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_retried_with_backoff(dialect: Dialect, status: int) -> None:
    bad = status_answer(status, "later")
    reply, server, hand = talk(dialect, bad, bad, bad, dialect.reply("Now"))
    assert reply.text == "Now"
    assert len(server.seen) == reply.stats.attempts == 4
    assert hand.waits == [0.375, 0.75, 1.5]
    assert reply.stats.queue_ms == pytest.approx(2625)
    assert consistent(reply.stats)
    assert reply.stats.usage.input_tokens == 100


@every_provider
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(dialect: Dialect, status: int) -> None:
    reply, _, hand = talk(dialect, status_answer(status, "later", Retry_After="7"), dialect.reply("Now"))
    assert reply.text == "Now"
    assert hand.waits == [7.0]


@every_provider
def test_retry_after_as_a_date_is_honoured(dialect: Dialect) -> None:
    date = email.utils.formatdate(1000 + 9, usegmt=True)  # the clock of these tests stands at 1000
    _, _, hand = talk(dialect, status_answer(429, "later", Retry_After=date), dialect.reply("Now"))
    assert hand.waits == [9.0]


@every_provider
@pytest.mark.parametrize("broken", [reset, half], ids=["reset", "half"])
def test_broken_connections_are_retried(dialect: Dialect, broken: Answer) -> None:
    reply, server, hand = talk(dialect, broken, broken, dialect.reply("Now"))
    assert reply.text == "Now"
    assert hand.waits == [0.375, 0.75]
    assert reply.stats.attempts == len(server.seen) == 3


@every_provider
def test_attempts_end(dialect: Dialect) -> None:
    error, server, hand = failing(dialect, status_answer(500, "broken"), retry=RetryPolicy(attempts=3))
    assert not isinstance(error, FatalModelError)
    assert len(server.seen) == 3
    assert hand.waits == [0.375, 0.75]
    assert error.stats is not None
    assert error.stats.attempts == 3
    assert "HTTP 500" in str(error)
    assert "broken" in str(error)


def test_an_answer_that_never_comes_ends_with_the_call_s_time() -> None:
    async def attempts(dialect: Dialect) -> int:
        async with serving(silence) as server, HttpPool() as http:
            model = dialect.model_of(server, http, Hand(), call_timeout_s=2.0)
            with pytest.raises(DeadlineError) as caught:
                await model.complete(request())
            await model.close()
            assert caught.value.stats is not None
            return caught.value.stats.attempts

    async def of_all() -> dict[str, int]:
        return dict(zip(names, await asyncio.gather(*map(attempts, ALL)), strict=True))

    names = [dialect.name for dialect in ALL]
    assert asyncio.run(of_all()) == dict.fromkeys(names, 1)


@every_provider
def test_no_request_is_sent_after_the_simulation_s_time(dialect: Dialect) -> None:
    async def ask(model: Model, server: Server, hand: Hand) -> None:
        with pytest.raises(DeadlineError):
            await model.complete(request(deadline=hand.now))

    _, server, _ = talk(dialect, dialect.reply("late"), then=ask)
    assert server.seen == []


@every_provider
def test_a_wait_beyond_the_deadline_is_not_begun(dialect: Dialect) -> None:
    error, server, hand = failing(dialect, status_answer(429, "later", Retry_After="120"), call_timeout_s=60.0)
    assert isinstance(error, DeadlineError)
    assert "HTTP 429" in str(error)
    assert hand.waits == []
    assert len(server.seen) == 1


@every_provider
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_for_a_year_is_asked_again_after_a_minute(dialect: Dialect, status: int) -> None:
    year = status_answer(status, "later", Retry_After="31536000")
    reply, _, hand = talk(dialect, year, dialect.reply("Now"))
    assert reply.text == "Now"
    assert hand.waits == [60.0]


@every_provider
@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens",
        "prompt is too long: 208310 tokens > 200000 maximum",
    ],
)
def test_a_context_overflow_is_its_own_error_and_not_retried(dialect: Dialect, message: str) -> None:
    error, server, _ = failing(dialect, status_answer(400, message))
    assert isinstance(error, ContextOverflowError)
    assert len(server.seen) == 1


@every_provider
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # litellm's, of what is wrong on purpose
@pytest.mark.parametrize(
    "answer",
    [
        raw_answer(b""),
        raw_answer(b"[1, 2"),
        raw_answer(b"null"),
        raw_answer(b'"text"'),
        json_answer({}),
        json_answer({"choices": [], "content": None}),
        json_answer({"choices": [{"message": {"content": 5}}], "content": [{"type": "text", "text": 5}]}),
        json_answer({"choices": [{"message": {"tool_calls": {"a": 1}}}], "content": {"a": 1}}),
        json_answer({"choices": [{"message": {"tool_calls": [{"function": 3}]}}], "content": [7]}),
    ],
    ids=["nothing", "torn", "null", "string", "no-choices", "empty", "number", "dict", "call"],
)
def test_an_answer_of_another_form_is_retried_and_then_an_ordinary_error(dialect: Dialect, answer: Answer) -> None:
    error, server, _ = failing(dialect, answer, retry=RetryPolicy(attempts=2))
    assert not isinstance(error, FatalModelError)
    assert len(server.seen) == 2


@every_provider
def test_a_bad_key_stops_every_later_call_before_it_is_sent(dialect: Dialect) -> None:
    async def twice(model: Model, server: Server, hand: Hand) -> list[str]:
        told = []
        for _ in range(2):
            with pytest.raises(FatalModelError) as caught:
                await model.complete(request())
            told.append(str(caught.value))
        return told

    leaky = status_answer(401, "Incorrect API key provided: sk-abc***xyz9")
    told, server, _ = talk(dialect, leaky, then=twice, outage_s=0.0)
    assert len(server.seen) == 1
    assert told[0] == told[1]
    assert "xyz9" not in told[0]


@every_provider
@pytest.mark.parametrize(
    "answer",
    [status_answer(402), json_answer({"error": {"code": "insufficient_quota", "message": "pay first"}}, 429)],
    ids=["402", "quota"],
)
def test_no_credit_is_fatal(dialect: Dialect, answer: Answer) -> None:
    error, server, hand = failing(dialect, answer, outage_s=0.0)
    assert isinstance(error, FatalModelError)
    assert "credit" in str(error)
    assert (len(server.seen), hand.waits) == (1, [])


@every_provider
def test_one_refused_conversation_leaves_the_model_open(dialect: Dialect) -> None:
    async def refused_then_asked(model: Model, server: Server, hand: Hand) -> Reply:
        with pytest.raises(ModelError) as caught:
            await model.complete(request())
        assert not isinstance(caught.value, FatalModelError)
        return await model.complete(request())

    reply, _, _ = talk(dialect, status_answer(400, "odd"), dialect.reply("Fine"), then=refused_then_asked)
    assert reply.text == "Fine"


@every_provider
def test_cancelling_a_call_frees_its_slot(dialect: Dialect) -> None:
    limiters = Limiters()

    async def cancelled(model: Model, server: Server, hand: Hand) -> None:
        task = asyncio.create_task(model.complete(request()))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    talk(dialect, silence, then=cancelled, limiters=limiters)
    assert [limiter.in_flight for limiter in limiters.by_provider.values()] == [0]


def test_a_failed_request_goes_to_another_server_and_the_router_hears_of_it() -> None:
    async def run() -> tuple[Reply, OneByOne]:
        async with serving(reset) as broken, serving(VLLM.reply("Here")) as good, HttpPool() as http:
            router = OneByOne(Endpoint("agent/0", broken.url, "tiny"), Endpoint("agent/1", good.url, "tiny"))
            model = VLLM.model_of(good, http, Hand(), router=router, max_context_tokens=30000)
            return await model.complete(request()), router

    reply, router = asyncio.run(run())
    assert reply.text == "Here"
    assert reply.stats.replica == "agent/1"
    assert router.released[-2:] == [("agent/0", True), ("agent/1", False)]
    assert router.held == 0


def test_requests_at_a_server_that_was_given_up_are_asked_elsewhere_at_once() -> None:
    async def run() -> tuple[Reply, OneByOne]:
        async with serving(silence) as hung, serving(VLLM.reply("Here")) as good, HttpPool() as http:
            first = Endpoint("agent/0", hung.url, "tiny")
            router = OneByOne(first, Endpoint("agent/1", good.url, "tiny"))
            model = VLLM.model_of(good, http, Hand(), router=router)
            task = asyncio.create_task(model.complete(request()))
            await hung.arrived.wait()
            first.abandon()
            return await task, router

    reply, router = asyncio.run(run())
    assert reply.text == "Here"
    assert ("agent/0", True) in router.released


@pytest.mark.parametrize("dialect", [OPENAI, LITELLM, RESPONSES], ids=lambda dialect: dialect.name)
def test_an_answer_without_end_is_not_read_to_it(dialect: Dialect) -> None:
    """litellm's connections too: it would put all of it into its own form first."""

    async def run() -> str:
        async with serving(raw_answer(b'"' + b"x" * 5_000_000 + b'"')) as server, HttpPool() as http:
            settings = ModelSettings(provider=dialect.provider, model=dialect.model, base_url=f"{server.url}/v1")
            backend: Backend
            if dialect is LITELLM:
                backend = LiteLLMAny(settings, longest_answer=100_000)
            elif dialect is RESPONSES:
                backend = OpenAIResponses(settings, longest_answer=100_000)
            else:
                backend = OpenAICompatible(settings, http, longest_answer=100_000)
            with pytest.raises(Failure) as caught:
                await backend.ask(request(), CallStats("tiny", "openai"), None)
            return str(caught.value)

    assert "longer than 100000 bytes" in asyncio.run(run())


def test_an_error_with_status_200_counts_as_what_it_says() -> None:
    inside = json_answer({"error": {"code": 429, "message": "slow down"}})
    reply, server, hand = talk(OPENAI, inside, OPENAI.reply("Now"))
    assert (reply.text, len(server.seen), hand.waits) == ("Now", 2, [0.375])


def test_tokens_of_a_useless_answer_are_counted_once() -> None:
    useless = json_answer({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 3}})
    reply, _, _ = talk(OPENAI, useless, OPENAI.reply("Now", tokens=(100, 20, 0)))
    assert (reply.stats.usage.input_tokens, reply.stats.usage.output_tokens) == (200, 23)


def test_a_fleet_costs_nothing_unless_it_is_priced() -> None:
    reply, _, _ = talk(VLLM, VLLM.reply("Hi"), price=None)
    assert reply.stats.cost_usd == 0


def test_waiting_for_a_server_counts_as_waiting_once() -> None:
    class Slow(OneByOne):
        async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
            hand.now += 3.0
            return await super().acquire(session, avoid)

    hand = Hand()

    async def run() -> CallStats:
        async with serving(status_answer(500), VLLM.reply("Hi")) as server, HttpPool() as http:
            model = VLLM.model_of(server, http, hand, router=Slow(Endpoint("agent/0", server.url, "tiny")))
            return (await model.complete(request())).stats

    stats = asyncio.run(run())
    assert stats.attempts == 2
    assert stats.queue_ms == pytest.approx(3 * 3000 + 375)  # one more for the question how long the context is
    assert stats.duration_ms == pytest.approx(stats.queue_ms)


def test_the_question_how_long_the_context_is_counts_as_the_server_s_time() -> None:
    async def run() -> CallStats:
        async with serving(VLLM.reply("Hi"), thinks_s=0.2) as server, HttpPool() as http:
            model = VLLM.model_of(server, http, router=OneByOne(Endpoint("agent/0", server.url, "tiny")))
            return (await model.complete(request())).stats

    stats = asyncio.run(run())
    assert stats.duration_ms >= 200
    assert stats.queue_ms <= stats.duration_ms - 200


def test_a_new_connection_is_timed_and_one_used_again_costs_nothing() -> None:
    async def run() -> list[CallStats]:
        async with serving(OPENAI.reply("Hi")) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http)
            return [(await model.complete(request())).stats for _ in range(2)]

    first, second = asyncio.run(run())
    assert 0 < first.connect_ms < first.duration_ms - first.queue_ms
    assert second.connect_ms == 0


def test_a_call_that_fails_tells_what_it_cost_all_the_same() -> None:
    useless = json_answer({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 10}})
    error, _, _ = failing(OPENAI, useless, retry=RetryPolicy(attempts=3))
    assert error.stats is not None
    assert (error.stats.usage.input_tokens, error.stats.attempts) == (3000, 3)
    assert error.stats.cost_usd == pytest.approx(3 * (1000 * 2.0 + 10 * 10.0) / 1e6)
    assert error.stats.queue_ms == pytest.approx(1125)
    assert consistent(error.stats)


@every_provider
def test_the_id_that_came_with_the_answer_is_kept(dialect: Dialect) -> None:
    reply, _, _ = talk(dialect, dialect.reply("Hi"))
    assert reply.stats.returned_model == "tiny"


@pytest.mark.parametrize("odd", [None, 3, "", ["tiny"]])
def test_an_answer_with_no_id_or_an_odd_one_is_an_answer(odd: Any) -> None:
    message = {"role": "assistant", "content": "Hi"}
    reply, _, _ = talk(VLLM, json_answer({"model": odd, "choices": [{"message": message}]}))
    assert (reply.text, reply.stats.returned_model) == ("Hi", None)
