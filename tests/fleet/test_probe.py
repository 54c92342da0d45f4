"""Questions to servers that mean ill: no answer costs more than its limits in time, memory and words."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from tau2_fleet.fleet.probe import ProbeError, check_health, http_session, listed, metrics_text, served_models
from tau2_fleet.fleet.sampler import parse_metrics
from tests.waiting import CEILING_S

MEGABYTE = 2**20
MODELS = json.dumps({"data": [{"id": "m", "max_model_len": 5}]}).encode()
OK = b"HTTP/1.1 200 OK\r\n"
Answer = Callable[[socket.socket], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server that answers every request so; its URL."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def whole(body: bytes, head: bytes = b"") -> Answer:
    return lambda connection: connection.sendall(OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def endless(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(b"x" * MEGABYTE)


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"X-A: " + b"y" * 1000 + b"\r\n")


def drop_by_drop(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


BOMB = whole(gzip.compress(b"\0" * (256 * MEGABYTE), compresslevel=1), b"Content-Encoding: gzip\r\n")
PROBES: dict[str, Callable[[aiohttp.ClientSession, str], Coroutine[Any, Any, object]]] = {
    "/health": lambda http, url: check_health(http, url, 1.0),
    "/v1/models": lambda http, url: served_models(http, url, "key", 1.0),
    "/metrics": lambda http, url: metrics_text(http, url, "key", 1.0),
}


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("answer", [endless, endless_headers, drop_by_drop, BOMB])
def test_an_answer_without_end_costs_a_second_and_little_memory(answer: Answer, path: str) -> None:
    async def ask(url: str) -> None:
        async with http_session() as http:
            with pytest.raises(ProbeError):
                await PROBES[path](http, url)

    with serving(answer) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        asyncio.run(ask(url))
        assert time.monotonic() - began < 30, "it ends"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def ask_models(answer: Answer) -> str:
    async def ask(url: str) -> str:
        async with http_session() as http:
            return ",".join(model.id for model in await served_models(http, url, "the-key", CEILING_S))

    with serving(answer) as url:
        return asyncio.run(ask(url))


def test_an_answer_that_was_compressed_unasked_is_read_all_the_same() -> None:
    assert ask_models(whole(gzip.compress(MODELS), b"Content-Encoding: gzip\r\n")) == "m"
    with pytest.raises(ProbeError, match="cannot be unpacked"):
        ask_models(whole(MODELS, b"Content-Encoding: gzip\r\n"))


def test_a_probe_follows_no_redirect_and_gives_its_key_to_nobody_else() -> None:
    asked: list[bytes] = []

    def note(connection: socket.socket) -> None:
        asked.append(b"here")

    with serving(note) as elsewhere:
        head = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/v1/models\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(ProbeError, match=f"answered 302 to {elsewhere}/v1/models"):
            ask_models(lambda connection: connection.sendall(head.encode()))
    assert asked == []


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"data": 3}', b'{"data": [3]}', b'{"data": [{}]}', b"\xff\xfe", b"null", b'"data"']
)
def test_what_is_no_list_of_models_is_said(body: bytes) -> None:
    with pytest.raises(ProbeError, match="answered something that is no list of models"):
        ask_models(whole(body))


def test_lists_in_messages_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"m{number}" for number in range(1000)]) == "m0, m1, m2, m3, m4 and 995 more"
    assert len(listed(["m" * 10_000] * 9)) < 600
    assert listed(["a\nb\x1b\t c"]) == "a b? c"


def test_metrics_that_are_no_numbers_are_left_out() -> None:
    found = parse_metrics(
        'vllm:num_requests_running 2\nvllm:prompt_tokens_total eEe\nvllm:kv_cache_usage_perc{a="b"} -\n'
    )
    assert (found.running, found.prompt_tokens, found.kv_use) == (2, 0, 0)
