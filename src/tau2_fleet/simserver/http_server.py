"""A small HTTP/1.1 server on asyncio's bare transports, for `server.py`.

Why not aiohttp: importing it costs half a second of CPU for every server of a fleet, a request here
costs a fraction, and faults need the transport itself (answers cut off, connections reset).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus

from tau2_fleet.simserver.http_request import Malformed, RequestReader

_AHEAD_BYTES = 1024 * 1024
"""What a client may send of its next requests before it has the answer to this one."""
_WHOLE_WITHIN_S = 60.0
"""A request that has begun must be there by then."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Exchange:
    """One request and the way to answer it, at once or later, once."""

    __slots__ = ("_connection", "body", "headers", "keep_alive", "method", "on_end", "path")

    def __init__(
        self,
        connection: _Connection,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        """Without the query."""
        self.headers = headers
        """Names in lower case."""
        self.body = body
        self.keep_alive = keep_alive
        self.on_end: Callable[[bool], None] | None = None
        """Called once when the request is over: True when it was answered, False when the client left."""

    @property
    def open(self) -> bool:
        """Whether the client still waits for the answer."""
        return self._connection.current is self

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """Send the whole answer; nothing happens when the client has left."""
        if self.open:
            self._connection.send(self._head(status, len(body), content_type, headers) + body, self.keep_alive)

    def respond_cut(self, status: int, body: bytes, sent: int) -> None:
        """Promise the whole body, send only its first `sent` bytes, and close."""
        if self.open:
            head = self._head(status, len(body), b"application/json", ())
            self._connection.send(head + body[:sent], keep_alive=False)

    def reset(self) -> None:
        """Drop the connection with a TCP reset, without an answer."""
        if self.open:
            self._connection.reset()

    def _head(self, status: int, length: int, content_type: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Unknown"))]
        if length or status != 200:
            lines.append(b"Content-Type: " + content_type)
        lines.append(b"Content-Length: %d" % length)
        lines.extend(name + b": " + value for name, value in headers)
        if not self.keep_alive:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"


Handler = Callable[[Exchange], None]


class _Connection(asyncio.Protocol):
    """One client's connection: requests are answered one after the other."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._requests = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._reading = False
        self._full = False
        """Whether the client does not take the answers that it has."""
        self._late: asyncio.TimerHandle | None = None
        self.current: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._expect_rest(False)
        self._finish(answered=False)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)
        if self.current is None and not self._full:
            self._read()
        elif self._requests.waiting > _AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self.current is None:
            self._read()

    def send(self, data: bytes, keep_alive: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(data)
        self._finish(answered=True)
        if not keep_alive or transport.is_closing():
            transport.close()
        elif self._requests.waiting:
            self._read()

    def reset(self) -> None:
        transport = self._transport
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None:
                # Lingering for zero seconds makes the kernel send RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            transport.abort()
        self._finish(answered=True)

    def _finish(self, answered: bool) -> None:
        exchange, self.current = self.current, None
        if exchange is not None and exchange.on_end is not None:
            exchange.on_end(answered)

    def _read(self) -> None:
        """Hand on the requests that are complete; one at a time, the next after the answer to the last."""
        if self._reading:
            return
        self._reading = True
        try:
            while (transport := self._ready()) is not None:
                transport.resume_reading()
                request = self._requests.next()
                if request is None:
                    if self._requests.wants_continue():
                        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    break
                self.current = Exchange(self, *request)
                self._handler(self.current)
            self._expect_rest(self.current is None and self._requests.begun)
        except Malformed as malformed:
            self._refuse(malformed.status)
        finally:
            self._reading = False

    def _ready(self) -> asyncio.Transport | None:
        """The transport, if the next request may be answered now: none after one that closes the connection."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._full or self.current is not None:
            return None
        return transport

    def _expect_rest(self, expected: bool) -> None:
        """Begin or end the time in which a request that has begun must be there."""
        if not expected and self._late is not None:
            self._late.cancel()
            self._late = None
        elif expected and self._late is None:
            self._late = asyncio.get_running_loop().call_later(_WHOLE_WITHIN_S, self._refuse, 408)

    def _refuse(self, status: int) -> None:
        self._expect_rest(False)
        self._requests = RequestReader()
        if self._transport is not None:
            head = b"HTTP/1.1 %d %b" % (status, _REASONS[status])
            self._transport.write(head + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()


async def listen(host: str, port: int, handler: Handler) -> asyncio.Server:
    """Accept connections from now on; `port` 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handler), host, port, backlog=4096)
