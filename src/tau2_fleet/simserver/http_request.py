"""Requests out of the bytes of a connection, for `http_server.py`: strict, bounded, and at no cost beyond the bytes.

Whatever a stranger sends before anybody has looked at its key ends as a request or as one of a few statuses. What two
readers could understand in two ways (RFC 9112, sections 5 to 7 and 11.2) is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
_MAX_CHUNK_LINE = 1024

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class Malformed(Exception):
    """No request, or one that is too large; the connection ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpRequest(NamedTuple):
    """One whole request."""

    method: str
    path: str
    """Without the query."""
    headers: dict[bytes, bytes]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


class _Head(NamedTuple):
    method: str
    path: str
    headers: dict[bytes, bytes]
    keep_alive: bool
    length: int | None
    """Bytes of the body; None: it comes in chunks."""


class RequestReader:
    """Takes a connection's bytes as they come, gives out the requests in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        """Of the request whose body is being read."""
        self._body = bytearray()
        """What its chunks so far held."""
        self._continued = False

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        self._buffer += data

    @property
    def waiting(self) -> int:
        """Bytes that belong to no request yet."""
        return len(self._buffer)

    @property
    def begun(self) -> bool:
        """Whether a part of a request is there."""
        return self._head is not None or bool(self._buffer)

    def wants_continue(self) -> bool:
        """Whether the client waits to be told that it may send the body; True once for each request."""
        head = self._head
        if head is None or self._continued or head.headers.get(b"expect", b"").lower() != b"100-continue":
            return False
        self._continued = True
        return True

    def next(self) -> HttpRequest | None:
        """The next whole request, or None until there is one.

        Raises:
            Malformed: there will be none.
        """
        if self._head is None:
            self._head = self._read_head()
        head = self._head
        if head is None:
            return None
        body = self._read_chunks() if head.length is None else self._read_sized(head.length)
        if body is None:
            return None
        self._head, self._continued = None, False
        return HttpRequest(head.method, head.path, head.headers, body, head.keep_alive)

    def _read_head(self) -> _Head | None:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise Malformed(431)
            return None
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        request = _REQUEST_LINE.fullmatch(first)
        if request is None:
            raise Malformed(400)
        headers: dict[bytes, bytes] = {}
        for line in lines:
            found = _HEADER.fullmatch(line)
            if found is None:
                raise Malformed(400)
            name, value = found[1].lower(), found[2].rstrip()
            if name in headers and name in (b"content-length", b"transfer-encoding", b"authorization"):
                raise Malformed(400)
            headers[name] = value
        connection = headers.get(b"connection", b"").lower()
        keep_alive = connection != b"close" if request[3] == b"1" else connection == b"keep-alive"
        path = request[2].decode("latin-1").partition("?")[0]
        return _Head(request[1].decode("ascii"), path, headers, keep_alive, _length(headers))

    def _read_sized(self, length: int) -> bytes | None:
        if len(self._buffer) < length:
            return None
        body = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return body

    def _read_chunks(self) -> bytes | None:
        """Take the chunks that are complete out of the buffer; the body after the last one."""
        buffer, position = self._buffer, 0
        last = False
        while not last and (line_end := buffer.find(b"\r\n", position, position + _MAX_CHUNK_LINE)) >= 0:
            line = _CHUNK_SIZE.fullmatch(bytes(memoryview(buffer)[position:line_end]))
            if line is None:
                raise Malformed(400)
            size = int(line[1], 16)
            if len(self._body) + size > MAX_BODY_BYTES:
                raise Malformed(413)
            start, end = line_end + 2, line_end + 2 + size
            if len(buffer) < end + 2:
                break
            if buffer[end : end + 2] != b"\r\n":  # after the last chunk: trailers, which nobody here sends
                raise Malformed(400)
            self._body += memoryview(buffer)[start:end]
            position, last = end + 2, size == 0
        else:
            if not last and len(buffer) - position >= _MAX_CHUNK_LINE:
                raise Malformed(400)
        del buffer[:position]
        if not last:
            return None
        body, self._body = bytes(self._body), bytearray()
        return body


def _length(headers: dict[bytes, bytes]) -> int | None:
    """How long the body is that these headers promise; None: it comes in chunks."""
    coding, text = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if text is not None or coding.lower() != b"chunked":
            raise Malformed(400)
        return None
    if text is None:
        return 0
    if not text.isdigit():
        raise Malformed(400)
    if len(text) > 12 or int(text) > MAX_BODY_BYTES:
        raise Malformed(413)
    return int(text)
