"""A prompt that a server finds too long is cut and sent again, whatever the words in which the server says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.too_long import TooLong, too_long
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ContextOverflowError, FatalModelError, ModelError
from tests.llm.dialects import ALL, CLAUDE, OPENAI, VLLM, Dialect
from tests.llm.serving import Answer, Server, json_answer, serving, status_answer
from tests.llm.test_context import TOOLS, turns

LIMIT = 5000

Words = Callable[[int, int], tuple[int, object]]
"""From the tokens of a prompt and those asked for to the status and the body of the refusal."""


def error(message: str, status: int = 400, **further: object) -> tuple[int, object]:
    return status, {"error": {"message": message, "code": status, **further}}


WORDS: dict[str, Words] = {
    "vllm": lambda n, out: error(
        f"This model's maximum context length is {LIMIT} tokens. However, you requested {out} output tokens and your "
        f"prompt contains at least {n} input tokens, for a total of at least {n + out} tokens."
    ),
    "vllm-0.9": lambda n, out: error(f"max_tokens must be at least 1, got {LIMIT - 1000 - n}"),
    "vllm-engine": lambda n, out: error(
        f"The decoder prompt (length {n}) is longer than the maximum model length of {LIMIT}. Make sure that "
        "`max_model_len` is no smaller than the number of text tokens."
    ),
    "llama.cpp": lambda n, out: error(
        f"request ({n} tokens) exceeds the available context size ({LIMIT} tokens), try increasing it",
        type="exceed_context_size_error",
        n_prompt_tokens=n,
        n_ctx=LIMIT,
    ),
    "llama.cpp-2025": lambda n, out: error(
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        500,
        type="exceed_context_size_error",
        n_prompt_tokens=n,
        n_ctx=LIMIT,
    ),
    "llama-cpp-python": lambda n, out: error(f"Requested tokens ({n}) exceed context window of {LIMIT}", 500),
    "ollama": lambda n, out: (400, {"error": "the input length exceeds the context length"}),
    "ollama-over": lambda n, out: (
        400,
        {"error": {"message": f"prompt too long; exceeded max context length by {n - LIMIT} tokens"}},
    ),
    "lm-studio": lambda n, out: (
        400,
        {
            "error": f"Trying to keep the first {n} tokens when context the overflows. However, the model is loaded "
            f"with context length of only {LIMIT} tokens, which is not enough."
        },
    ),
    "sglang": lambda n, out: (
        400,
        {
            "object": "error",
            "message": f"The input ({n} tokens) is longer than the model's context length ({LIMIT} tokens).",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    "tgi": lambda n, out: (
        422,
        {
            "error": f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {LIMIT}. Given: {n} "
            f"`inputs` tokens and {out} `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    "tgi-input": lambda n, out: (
        422,
        {"error": f"Input validation error: `inputs` must have less than {LIMIT} tokens. Given: {n}"},
    ),
    "bedrock": lambda n, out: error("Input is too long for requested model."),
    "openai": lambda n, out: error(
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        code="context_length_exceeded",
    ),
    "anthropic": lambda n, out: error(f"prompt is too long: {n} tokens > {LIMIT} maximum"),
    "anthropic-sum": lambda n, out: error(
        f"input length and `max_tokens` exceed context limit: {n} + {out} > {LIMIT}, decrease input length or "
        "`max_tokens` and try again"
    ),
    "gemini": lambda n, out: (
        400,
        [{"error": {"code": 400, "message": f"The input token count ({n}) exceeds the maximum number of tokens allowed "
                    f"({LIMIT})."}}],
    ),
    "mistral": lambda n, out: (
        400,
        {"object": "error", "message": f"Prompt contains {n} tokens and 0 draft tokens, too large for model with "
         f"{LIMIT} maximum context length"},
    ),
    "gateway": lambda n, out: (
        413,
        {"message": "Request Entity Too Large"},
    ),
    "inside-200": lambda n, out: (
        200,
        {"error": {"code": "context_length_exceeded", "message": f"maximum context length: {LIMIT}"}},
    ),
}  # fmt: skip


def strict(dialect: Dialect, words: Words) -> Answer:
    """A server that takes prompts of 4 bytes a token, up to its limit, and reserves what the answer may need."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tokens = len(orjson.dumps([body.get("messages") or body["input"], body.get("tools"), body.get("system")])) // 4
        if tokens <= LIMIT - 1000:
            return await dialect.reply("Yes", tokens=(tokens, 1, 0))(request)
        status, told = words(tokens, body.get("max_tokens") or 1000)
        return await json_answer(told, status)(request)

    return answer


def converse(dialect: Dialect, answer: Answer, **settings: Any) -> tuple[list[int], Server]:
    """A long conversation's messages left out, one number a turn."""

    async def run() -> tuple[list[int], Server]:
        async with serving(answer) as server, HttpPool() as http:
            model = dialect.model_of(server, http, **settings)
            history: list[ChatMessage] = []
            left_out = []
            for step in turns(2, 40):
                history += step
                reply = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
                assert reply.text == "Yes"
                left_out.append(reply.stats.trimmed_messages)
            await model.close()
            return left_out, server

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Range of input length should be [1, 4700]", TooLong(4700)),
        ("Your request exceeded model token limit: 4700 (requested: 5100)", TooLong(4700, prompt_only=False)),
        ("number of input tokens 5100 cannot exceed the total tokens limit 4700", TooLong(4700, prompt_only=False)),
        ("Prompt length 5100 is greater than max_seq_len 4700", TooLong(4700, prompt_only=False)),
        ("input token length 5100 exceeds session_len 4700", TooLong(4700)),
        ("number of tokens in the prompt cannot exceed 4700; too many tokens", TooLong(4700)),
        ("(5100) exceeded this model context window limit (4700).", TooLong(4700, prompt_only=False)),
        ("Prompt exceeds KV cache size: 5100 > 4700", TooLong(4700, prompt_only=False)),
        ("Please reduce the length of the messages or completion.", TooLong()),
        ("Total tokens of image and text exceed max message tokens.", TooLong()),
        ("Prompt 超长", TooLong()),
    ],
)
def test_other_servers_words_are_known(text: str, known: TooLong) -> None:
    assert too_long(text) == known


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("output", [None, 1000])
def test_a_limit_is_learned_from_a_refusal_and_the_conversation_goes_on(words: Words, output: int | None) -> None:
    left_out, server = converse(VLLM, strict(VLLM, words), max_output_tokens=output)
    assert left_out[0] == 0
    assert left_out[-1] > 0
    refused = len(server.seen) - len(left_out)
    assert 0 < refused <= 8


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_every_provider_learns_its_limit(dialect: Dialect) -> None:
    words = WORDS["anthropic" if dialect is CLAUDE else "llama.cpp"]
    left_out, _ = converse(dialect, strict(dialect, words), max_output_tokens=1000)
    assert left_out[-1] > 0


def refused(*script: Answer, history: int = 0, **settings: Any) -> tuple[ModelError, int]:
    """The error of one request, and how often it was sent."""

    async def run() -> tuple[ModelError, int]:
        async with serving(*script) as server, HttpPool() as http:
            messages = tuple(message for step in turns(2, history) for message in step)
            with pytest.raises(ModelError) as caught:
                await OPENAI.model_of(server, http, **settings).complete(ChatRequest(messages, "s", TOOLS))
            return caught.value, len(server.seen)

    return asyncio.run(run())


def test_what_cannot_be_cut_ends_as_an_overflow_after_one_request() -> None:
    error, sent = refused(status_answer(400, "Input is too long for requested model."))
    assert isinstance(error, ContextOverflowError)
    assert sent == 1


def test_a_server_that_finds_everything_too_long_is_not_asked_for_ever() -> None:
    error, sent = refused(status_answer(400, f"maximum context length is {LIMIT} tokens"), history=30)
    assert isinstance(error, (ContextOverflowError, FatalModelError))
    assert sent <= 9


def test_an_answer_longer_than_the_told_context_names_the_key() -> None:
    error, _ = refused(
        status_answer(400, f"maximum context length is {LIMIT} tokens"), history=30, max_output_tokens=LIMIT
    )
    assert isinstance(error, FatalModelError)
    assert "max_output_tokens" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens is too large: 64000. This model supports at most 16384 completion tokens",
        "Rate limit reached for gpt-5 on tokens per min (TPM): Limit 30000, Used 29000, Requested 4000",
        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'",
        "Invalid 'messages[3].tool_calls[0].id': string too long. Expected a string with maximum length 40",
        "max_tokens must be at least 1, got None",
        "Invalid input: the name of a tool exceeds 64 characters",
        "",
    ],
)
def test_refusals_of_other_kinds_are_not_taken_for_a_long_prompt(text: str) -> None:
    assert too_long(text) is None


@pytest.mark.parametrize("known", [TooLong(8192, prompt_only=False), TooLong(4096)])
def test_numbers_with_separators_are_read(known: TooLong) -> None:
    limit = f"{known.limit:,}"
    text = f"available context size ({limit})" if known.prompt_only else f"maximum context length is {limit} tokens"
    assert too_long(text) == known


@pytest.mark.parametrize("context", [6000, 1500, 100_000])
def test_room_for_an_answer_is_kept_where_its_length_is_not_limited(context: int) -> None:
    """At least 1,024 tokens and a quarter of the context, or half of one that is too small for that."""
    free = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert "max_tokens" not in body
        tokens = len(orjson.dumps([body["messages"], body["tools"]])) // 4
        free.append(context - tokens)
        return await VLLM.reply("Yes", tokens=(tokens, 1, 0))(request)

    async def run() -> None:
        models = {"data": [{"id": "tiny", "max_model_len": context}]}
        async with serving(answer, models=models) as server, HttpPool() as http:
            model = VLLM.model_of(server, http, max_output_tokens=None)
            history = [ChatMessage("system", "policy"), ChatMessage("user", "Hello")]
            for number in range(60):
                history += [ChatMessage("assistant", f"{number} words " * 40), ChatMessage("user", "12,34," * 8)]
                reply = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
                assert reply.text == "Yes"

    asyncio.run(run())
    assert min(free) >= (context // 2 if context < 2048 else max(1024, context // 4))


def test_instructions_that_nearly_fill_the_context_leave_a_short_answer() -> None:
    """A quarter of the context cannot be kept free: what can be cut is cut, and the rest is sent."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tokens = len(orjson.dumps([body["messages"], body["tools"]])) // 4
        if tokens > LIMIT - 1:
            return await status_answer(400, f"maximum context length is {LIMIT} tokens")(request)
        return await VLLM.reply("Yes", tokens=(tokens, 1, 0))(request)

    async def run() -> int:
        models = {"data": [{"id": "tiny", "max_model_len": LIMIT}]}
        async with serving(answer, models=models) as server, HttpPool() as http:
            model = VLLM.model_of(server, http, max_output_tokens=None)
            history = [ChatMessage("system", "policy words " * 1400), ChatMessage("user", "Hello")]
            for number in range(20):
                history += [ChatMessage("assistant", f"{number} words " * 10), ChatMessage("user", "yes " * 10)]
                reply = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
                assert reply.text == "Yes"
            return reply.stats.trimmed_messages

    assert asyncio.run(run()) > 0
