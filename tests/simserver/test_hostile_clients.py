"""What strangers send to a simulated server, before their key is looked at: it is refused, and the server goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.simserver.process import RunningServer, running
from tests.waiting import CEILING_S

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FULL_HEAD = b"X: " + b"x" * 70_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


def answers(server: RunningServer, *pieces: bytes, limit_s: float = CEILING_S) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=limit_s) as connection:
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, CHUNKED + b"-6\r\n"),
        (400, CHUNKED + b"-6\r\n" + b"x" * 100),
        (400, CHUNKED + b"+6\r\nabcdef\r\n0\r\n\r\n"),
        (400, CHUNKED + b"0x6\r\nabcdef\r\n0\r\n\r\n"),
        (400, CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        (400, CHUNKED + b"\r\n"),
        (400, CHUNKED + b"6\r\nabcdefgh\r\n0\r\n\r\n"),
        (400, CHUNKED + b"6" * 2000),
        (400, CHUNKED + b"0\r\nTrailer: GET /health HTTP/1.1\r\n\r\n"),
        (413, CHUNKED + b"ffffffff\r\n"),
        (400, POST + b"Content-Length: -1\r\n\r\n"),
        (400, POST + b"Content-Length: 1e3\r\n\r\n"),
        (413, POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        (413, POST + b"Content-Length: 999999999999\r\n\r\n"),
        (400, POST + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd"),
        (400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"X: a\r\n folded: b\r\n\r\n"),
        (400, POST + b"no colon\r\n\r\n"),
        (400, POST + b"X: \x00\r\n\r\n"),
        (400, POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (400, b"\r\n\r\n"),
        (400, b"GET  /health HTTP/1.1\r\n\r\n"),
        (400, b"GET /health HTTP/2.0\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (431, GET + FULL_HEAD),
        (431, GET + b"".join(b"X-%d: y\r\n" % number for number in range(10_000))),
        (401, POST + b"Content-Length: 2\r\n\r\n{}"),
        (401, POST + b"Authorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n{}"),
        (404, b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"),
        (404, b"GET /" + b"%00" * 10_000 + b" HTTP/1.1\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_refused(server: RunningServer, status: int, sent: bytes) -> None:
    assert answers(server, sent).startswith(b"HTTP/1.1 %d " % status)
    assert server.request("GET", "/health") == (200, b"")


def test_nothing_follows_a_request_that_ends_its_connection(server: RunningServer) -> None:
    smuggled = b"GET /version HTTP/1.1\r\n\r\n"
    assert answers(server, GET + b"Connection: close\r\n\r\n" + smuggled).count(b"HTTP/1.1 ") == 1
    assert answers(server, CHUNKED + b"-6\r\n" + smuggled).count(b"HTTP/1.1 ") == 1
    assert answers(server, GET + b"\r\n" + smuggled).count(b"HTTP/1.1 200") == 2


def test_a_body_in_a_hundred_thousand_chunks_costs_no_more_than_its_bytes(server: RunningServer) -> None:
    body = b"".join(b"1\r\n \r\n" for _ in range(100_000)) + b"2\r\n{}\r\n0\r\n\r\n"
    head = POST + b"Authorization: Bearer secret-key\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    pieces = [body[at : at + 997] for at in range(0, len(body), 997)]
    assert answers(server, head, *pieces).startswith(b"HTTP/1.1 4")
    assert sum(process.cpu_times()[:2]) - before < 5


def test_requests_that_nobody_waits_for_do_not_fill_the_memory(server: RunningServer) -> None:
    """A client that sends for ever and reads nothing is not read any further."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setblocking(False)
        flood = (GET + b"\r\n") * 10_000
        sent, deadline = 0, time.monotonic() + 20
        while time.monotonic() < deadline and sent < 200_000_000:
            try:
                sent += connection.send(flood)
                refused_at = time.monotonic()
            except BlockingIOError:
                if time.monotonic() - refused_at > 1:
                    break
        assert sent < 200_000_000
    assert server.request("GET", "/health") == (200, b"")
    assert process.memory_info().rss - before < 50_000_000


def test_connections_that_say_nothing_hold_nobody_up(server: RunningServer, tmp_path: Path) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    for number, connection in enumerate(silent):
        connection.sendall((GET + b"X-Slow: ")[: number % 40])
    try:
        assert server.request("GET", "/health") == (200, b"")
    finally:
        for connection in silent:
            connection.close()
