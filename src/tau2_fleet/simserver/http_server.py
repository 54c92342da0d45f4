"""A small HTTP/1.1 server on asyncio's bare transports, for `server.py`.

Why not aiohttp: importing it costs half a second of CPU for every server of a fleet, a request here
costs a fraction, and faults need the transport itself (answers cut off, connections reset).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024

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


class _Malformed(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Connection(asyncio.Protocol):
    """One client's connection: requests are answered one after the other."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._reading = False
        self._continue_sent = False
        self.current: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(answered=False)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def send(self, data: bytes, keep_alive: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(data)
        self._finish(answered=True)
        if not keep_alive or transport.is_closing():
            transport.close()
        elif self._buffer:
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
            while self.current is None and self._transport is not None and (exchange := self._next()) is not None:
                self.current = exchange
                self._handler(exchange)
        except _Malformed as malformed:
            self._refuse(malformed.status)
        finally:
            self._reading = False

    def _refuse(self, status: int) -> None:
        self._buffer.clear()
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                % (
                    status,
                    _REASONS[status],
                )
            )
            self._transport.close()

    def _next(self) -> Exchange | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise _Malformed(431)
            return None
        first, *lines = bytes(buffer[:end]).split(b"\r\n")
        parts = first.split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            raise _Malformed(400)
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        read = self._chunked(end + 4) if b"transfer-encoding" in headers else self._sized(end + 4, headers)
        if read is None:
            if headers.get(b"expect", b"").lower() == b"100-continue" and not self._continue_sent:
                self._continue_sent = True
                if self._transport is not None:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body, after = read
        del buffer[:after]
        self._continue_sent = False
        connection = headers.get(b"connection", b"").lower()
        keep_alive = connection != b"close" if parts[2] == b"HTTP/1.1" else connection == b"keep-alive"
        method, target = parts[0].decode("latin-1"), parts[1].decode("latin-1")
        return Exchange(self, method, target.partition("?")[0], headers, body, keep_alive)

    def _sized(self, start: int, headers: dict[bytes, bytes]) -> tuple[bytes, int] | None:
        text = headers.get(b"content-length", b"0")
        if not text.isdigit():
            raise _Malformed(400)
        end = start + int(text)
        if end - start > MAX_BODY_BYTES:
            raise _Malformed(413)
        return (bytes(memoryview(self._buffer)[start:end]), end) if len(self._buffer) >= end else None

    def _chunked(self, start: int) -> tuple[bytes, int] | None:
        buffer, position, body = self._buffer, start, bytearray()
        while (line_end := buffer.find(b"\r\n", position)) >= 0:
            try:
                size = int(bytes(buffer[position:line_end]).partition(b";")[0], 16)
            except ValueError:
                raise _Malformed(400) from None
            if len(body) + size > MAX_BODY_BYTES:
                raise _Malformed(413)
            chunk = line_end + 2
            if len(buffer) < chunk + size + 2:
                return None
            if size == 0:
                return bytes(body), chunk + 2
            body += buffer[chunk : chunk + size]
            position = chunk + size + 2
        return None


async def listen(host: str, port: int, handler: Handler) -> asyncio.Server:
    """Accept connections from now on; `port` 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handler), host, port, backlog=4096)
