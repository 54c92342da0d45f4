"""CPU of one chat request with 16 tools and 20 messages, beside other clients, and the rate with 1,000 in flight.

The server is a process of its own (`python -m benchmarks.requests SECONDS`), so that only the client is measured;
of each client's requests the best quarter in a row counts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from benchmarks.rows import Row

if TYPE_CHECKING:
    from tau2_fleet.llm.types import ChatMessage, ChatRole

IN_FLIGHT = 1000
ANSWER_S = 1.0
_TOOLS = 16
_MESSAGES = 20
_WARM_UP = 20
_TURNS = 5
"""Timed in each conversation; the first, which finds out how long the prompt is, is not."""

Ask = Callable[[int], Awaitable[object]]


def rows(*, quick: bool) -> list[Row]:
    """Measure all clients."""
    with server(0.0) as url:
        lean = asyncio.run(lean_path(url, 400 if quick else 2000))
        typed = asyncio.run(openai_typed(url, 40 if quick else 200))
        others = asyncio.run(litellm_call(url, 40 if quick else 200))
    rounds = 8 if quick else 20
    with server(ANSWER_S) as url:
        wall_s = asyncio.run(in_flight(url, rounds))
    share = 100 * checks_ms(200 if quick else 1000) / lean
    cpu = f"requests/{_TOOLS} tools, {_MESSAGES} messages/cpu"
    return [
        Row(f"{cpu}, OpenAI client", lean, typed, "ms/request", "OpenAI client, typed call", guarded=True, goal=5.0,
            limit=0.5),
        Row(f"{cpu}, litellm", lean, others, "ms/request", "litellm", guarded=True, goal=15.0),
        Row(f"{cpu}, of it the checks of a reply", share, None, "%", limit=3.0),
        Row(f"requests/{IN_FLIGHT} in flight", wall_s, rounds * ANSWER_S, "s", "no overhead at all", goal=0.8),
    ]  # fmt: skip


async def lean_path(url: str, count: int) -> float:
    """Milliseconds of CPU per turn through `llm/`, from the conversation's history to its reply; the best part."""
    from tau2_fleet.llm.call_log import CallLog
    from tau2_fleet.llm.factory import build
    from tau2_fleet.llm.http import HttpPool
    from tau2_fleet.llm.session import ModelSession
    from tau2_fleet.llm.types import ChatMessage

    settings, router, tools = pool(url)
    system, *history = messages()
    spent: list[float] = []
    async with HttpPool() as http:
        model = build(settings, name="bench", http=http, router=router)
        for number in range(_WARM_UP + count // _TURNS):
            session_id = f"bench/retail/{number}/0/agent"
            session = ModelSession(
                "agent", model, session_id, system, tools, seed=1, calls=CallLog(), history=history[:-_TURNS]
            )
            await session.ask()
            begun = time.process_time()
            for turn in range(_TURNS):
                session.history.append(ChatMessage("user", f"And then? {turn}"))
                reply = await session.ask()
                session.history.append(ChatMessage("assistant", reply.text, reply.tool_calls))
            if number >= _WARM_UP:
                spent.append((time.process_time() - begun) / _TURNS)
    return _best_part(spent)


def checks_ms(count: int) -> float:
    """Milliseconds of CPU in which a reply is looked through for every condition; a call, a text and a text with
    thinking beside it on average, the best part."""
    from tau2_fleet.llm.completion import decode_completion
    from tau2_fleet.llm.examine import examine

    _, _, tools = pool("http://127.0.0.1")
    said = "I found the order (#W2378156). Shall I exchange the keyboard for the one with clicky switches? " * 2
    thought = "They want the keyboard exchanged; the policy asks for a confirmation first. " * 10
    messages: list[dict[str, object]] = [_CALLING, {"content": said}, {"content": said, "reasoning_content": thought}]
    answers = [decode_completion(_completion({"role": "assistant", **message})) for message in messages]
    spent: list[float] = []
    for _ in range(count):
        begun = time.process_time()
        for answer in answers * 10:
            examine(answer, tools)
        spent.append((time.process_time() - begun) / (10 * len(answers)))
    return _best_part(spent)


async def openai_typed(url: str, count: int) -> float:
    """The same through `openai.AsyncOpenAI().chat.completions.create`."""
    import openai

    tools, history = _schemas(), _history()
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:

        async def ask(number: int) -> object:
            return await client.chat.completions.create(  # type: ignore[call-overload]
                model="bench", messages=history, tools=tools, tool_choice="auto", temperature=1.0, max_tokens=8000
            )

        return await _cpu_ms(ask, count)


async def litellm_call(url: str, count: int) -> float:
    """The same through `litellm.acompletion`."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    tools, history = _schemas(), _history()

    async def ask(number: int) -> object:
        return await litellm.acompletion(
            model="openai/bench",
            base_url=f"{url}/v1",
            api_key="none",
            messages=history,
            tools=tools,
            tool_choice="auto",
            temperature=1.0,
            max_tokens=8000,
            max_retries=0,
        )

    return await _cpu_ms(ask, count)


async def in_flight(url: str, rounds: int) -> float:
    """Seconds in which 1,000 conversations ask `rounds` times each, one after the other, of a server that takes 1 s.

    Each has asked once before: the time to open the connections is not counted.
    """
    from tau2_fleet.llm.factory import build
    from tau2_fleet.llm.http import HttpPool
    from tau2_fleet.llm.types import ChatRequest

    settings, router, tools = pool(url)
    history = messages()
    async with HttpPool() as http:
        model = build(settings, name="bench", http=http, router=router)

        async def conversation(number: int, times: int) -> None:
            for _ in range(times):
                await model.complete(ChatRequest(history, f"bench/retail/{number}/0/agent", tools))

        async def all_of_them(times: int) -> float:
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(IN_FLIGHT):
                    group.create_task(conversation(number, times))
            return time.perf_counter() - begun

        await all_of_them(1)
        return await all_of_them(rounds)


async def _cpu_ms(ask: Ask, count: int) -> float:
    for number in range(_WARM_UP):
        await ask(number)
    spent: list[float] = []
    for number in range(count):
        begun = time.process_time()
        await ask(number)
        spent.append(time.process_time() - begun)
    return _best_part(spent)


def _best_part(seconds: Sequence[float], parts: int = 4) -> float:
    """Milliseconds on average in the cheapest of some equal parts: others use the machine too."""
    size = len(seconds) // parts
    return 1000 * min(sum(seconds[size * part : size * (part + 1)]) / size for part in range(parts))


def pool(url: str):  # type: ignore[no-untyped-def]
    """Settings of the agent as a run has them, a router with one server, and the tools."""
    from tau2_fleet.llm.endpoints import Endpoint
    from tau2_fleet.llm.settings import ModelSettings, Provider
    from tau2_fleet.llm.types import ToolSet

    class OneServer:
        endpoint = Endpoint("agent/0", url, "bench")

        async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
            return self.endpoint

        def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None: ...

        def end_session(self, session: str) -> None: ...

    settings = ModelSettings(Provider.vllm, max_output_tokens=8000, max_context_tokens=23000)
    return settings, OneServer(), ToolSet.of(_schemas())


def _schemas() -> list[dict]:  # type: ignore[type-arg]
    from tau2_fleet.benchmark.domains import load_domain

    schemas = load_domain("retail").agent_tools
    return list(itertools.islice(itertools.cycle(schemas), _TOOLS))


def messages() -> list[ChatMessage]:
    """The history as this program holds it."""
    from tau2_fleet.llm.types import ChatMessage

    roles: dict[str, ChatRole] = {"system": "system", "user": "user", "assistant": "assistant"}
    return [ChatMessage(roles[message["role"]], message["content"]) for message in _history()]


def _history() -> list[dict[str, str]]:
    from tau2_fleet.benchmark.domains import load_domain

    said = "I would like to exchange the keyboard of order #W2378156 for one with clicky switches. " * 3
    turns = [{"role": ("user", "assistant")[index % 2], "content": said} for index in range(_MESSAGES - 1)]
    return [{"role": "system", "content": load_domain("retail").policy}, *turns]


@contextmanager
def server(answer_s: float) -> Iterator[str]:
    """A server process that answers every request the same after so many seconds; its URL."""
    command = [sys.executable, "-m", "benchmarks.requests", str(answer_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class _Fixed(asyncio.Protocol):
    """Just enough HTTP/1.1 to cost little beside the client that is measured."""

    answer = b""
    answer_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self._received[:head]).lower()
        _, _, rest = lower.partition(b"content-length:")
        length = int(rest.partition(b"\r\n")[0] or 0)
        if len(self._received) < head + 4 + length:
            return
        self._received.clear()
        if lower.startswith(b"get"):
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif self.answer_s:
            asyncio.get_running_loop().call_later(self.answer_s, self._write)
        else:
            self._write()

    def _write(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self.answer)


_CALL = {"name": "get_order_details", "arguments": json.dumps({"order_id": "#W2378156"})}
_CALLING: dict[str, object] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": _CALL}],
}


def _completion(message: Mapping[str, object]) -> bytes:
    """The body of a chat completion."""
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    return json.dumps(
        {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 4000, "completion_tokens": 30, "total_tokens": 4030},
        }
    ).encode()


def _serve(answer_s: float) -> None:
    body = _completion(_CALLING)
    _Fixed.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    _Fixed.answer_s = answer_s

    async def serve() -> None:
        listening = await asyncio.get_running_loop().create_server(_Fixed, "127.0.0.1", 0, backlog=4096)
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _serve(float(sys.argv[1]))
