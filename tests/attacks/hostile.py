"""A server that means ill: every attack is what it sends, byte for byte, to whoever asked."""

from __future__ import annotations

import gzip
import json
import re
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from typing import Any

from tests.waiting import CEILING_S

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\r\n[red]=cmd()\x00"
_PIECE = b"x" * 65536
_LONGEST_S = 2 * CEILING_S


@dataclass
class Asked:
    """One request, and the connection that waits for its answer."""

    connection: socket.socket
    head: bytes
    over: threading.Event

    @property
    def key(self) -> str:
        found = re.search(rb"(?i)authorization: Bearer (\S+)", self.head)
        return found[1].decode() if found else "no key"

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def whole(self, body: bytes, status: bytes = b"200 OK", head: bytes = b"") -> None:
        """An answer with its length."""
        self.send(b"HTTP/1.1 " + status + b"\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def for_ever(self, opening: bytes, piece: bytes, every_s: float = 0.0) -> None:
        """Send the piece again and again, as long as somebody listens."""
        self.send(opening)
        began = time.monotonic()
        while not self.over.wait(every_s) and time.monotonic() - began < _LONGEST_S and not self._left():
            self.send(piece)

    def _left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)


Attack = Callable[[Asked], None]
OK = b"HTTP/1.1 200 OK\r\n"


def completion(**message: Any) -> dict[str, Any]:
    """A sound answer with this message; it serves as list of models, too."""
    return {
        "data": [{"id": "m", "max_model_len": 32768}],
        "choices": [
            {"message": {"role": "assistant", "content": "Yes. ###STOP###"} | message, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    }


SOUND = json.dumps(completion()).encode()


def changed(**parts: Any) -> bytes:
    """A sound answer with some parts of it replaced."""
    return json.dumps(completion() | parts).encode()


def body(content: bytes, status: bytes = b"200 OK", head: bytes = b"") -> Attack:
    return lambda asked: asked.whole(content, status, head)


def raw(data: bytes) -> Attack:
    return lambda asked: asked.send(data)


def forever(opening: bytes, piece: bytes, every_s: float = 0.0) -> Attack:
    return lambda asked: asked.for_ever(opening, piece, every_s)


def reset(asked: Asked) -> None:
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


@cache
def bomb(form: int) -> bytes:
    """Half a megabyte that unpacks to half a gigabyte; `form` as in `zlib.compressobj`: 31 is gzip, 15 zlib."""
    packer = zlib.compressobj(9, zlib.DEFLATED, form)
    piece = b" " * 2**20
    return b"".join([packer.compress(piece) for _ in range(512)]) + packer.flush()


def quoting(form: Callable[[str], str], status: bytes = b"400 Bad") -> Attack:
    """An error that says the key back."""
    return lambda asked: asked.whole(form(asked.key).encode(), status)


def nested(depth: int) -> bytes:
    return b'{"choices":[{"message":' + b'{"content":' * depth + b'"x"' + b"}" * depth + b"}]}"


CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

ATTACKS: dict[str, Attack] = {
    "nothing": lambda asked: None,
    "reset": reset,
    "silence": lambda asked: asked.for_ever(b"", b"", 0.2),
    "slow head": forever(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.05),
    "slow body": forever(OK + b"Content-Length: 100000\r\n\r\n{", b" ", 0.05),
    "slow chunks": forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.05),
    "endless head": forever(OK, b"X-Y: " + b"z" * 4000 + b"\r\n"),
    "endless header": forever(OK + b"X: ", _PIECE),
    "endless status": forever(b"HTTP/1.1 200 ", _PIECE),
    "endless body": forever(OK + b"\r\n", _PIECE),
    "endless chunks": forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + _PIECE + b"\r\n"),
    "endless chunk line": forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65536),
    "endless 100": forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless 103": forever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "compressed bomb": lambda asked: asked.whole(bomb(31), head=b"Content-Encoding: gzip\r\n"),
    "deflated bomb": lambda asked: asked.whole(bomb(15), head=b"Content-Encoding: deflate\r\n"),
    "bomb in a bomb": body(gzip.compress(gzip.compress(b" " * 2**26)), head=b"Content-Encoding: gzip, gzip\r\n"),
    "said to be compressed": body(SOUND, head=b"Content-Encoding: gzip\r\n"),
    "said to be br": body(SOUND, head=b"Content-Encoding: br\r\n"),
    "unknown coding": body(SOUND, head=b"Content-Encoding: \xff\xfe\r\n"),
    "negative chunk": raw(OK + b"Transfer-Encoding: chunked\r\n\r\n-6\r\n{}\r\n0\r\n\r\n"),
    "huge chunk": raw(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}"),
    "negative length": raw(OK + b"Content-Length: -1\r\n\r\n" + SOUND),
    "huge length": raw(OK + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n" + SOUND),
    "promised gigabytes": raw(OK + b"Content-Length: 99999999999\r\n\r\n{}"),
    "two lengths": raw(OK + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}"),
    "length and chunks": raw(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "cut off": raw(OK + b"Content-Length: 1000\r\n\r\n" + SOUND[:30]),
    "status 0": raw(b"HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n"),
    "status 99999": raw(b"HTTP/1.1 99999 No\r\nContent-Length: 0\r\n\r\n"),
    "status -200": raw(b"HTTP/1.1 -200 No\r\nContent-Length: 0\r\n\r\n"),
    "status 999": body(b"{}", b"999 What"),
    "status 600": body(b"{}", b"600 Beyond"),
    "status 101": raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc"),
    "status 204": raw(b"HTTP/1.1 204 None\r\n\r\n"),
    "status 206": body(SOUND[:20], b"206 Part"),
    "status 304": raw(b"HTTP/1.1 304 Same\r\n\r\n"),
    "status 418": body(b"{}", b"418 Teapot"),
    "status 511": body(b"<html>log in</html>", b"511 Network Authentication Required"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "TLS": raw(b"\x15\x03\x01\x00\x02\x02\x16"),
    "HTTP/0.9": raw(b"<html>hello</html>"),
    "HTTP/9.9": raw(b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "NUL bytes": raw(b"\x00" * 5000),
    "control signs in headers": body(SOUND, head=b"X-\x1b]0;owned\x07: \x1b[2J\r\n"),
    "control signs in a reason": body(b"{}", b"503 \x1b]0;owned\x07"),
    "redirect to itself": body(b"", b"302 Found", b"Location: /v1/models\r\n"),
    "redirect elsewhere": body(b"", b"307 Go", b"Location: http://169.254.169.254/latest/meta-data\r\n"),
    "redirect to a file": body(b"", b"301 Go", b"Location: file:///etc/passwd\r\n"),
    "redirect to no place": body(b"", b"308 Go", b"Location: http://[::1\r\n"),
    "cookies": body(SOUND, head=b"".join(b"Set-Cookie: c%d=%b\r\n" % (n, b"v" * 100) for n in range(60))),
    "cookie without sense": body(SOUND, head=b'Set-Cookie: a="\\x00"; Domain=..; Expires=never; Max-Age=-9e9\r\n'),
    "second answer": lambda asked: asked.send(2 * (OK + b"Content-Length: %d\r\n\r\n" % len(SOUND) + SOUND)),
    "answer before the end": raw(OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nevil"),
    "ask again next year": body(b"{}", b"429 Busy", b"Retry-After: 31536000\r\n"),
    "ask again never": body(b"{}", b"503 Busy", b"Retry-After: inf\r\n"),
    "ask again before": body(b"{}", b"429 Busy", b"Retry-After: -1\r\nretry-after-ms: nan\r\n"),
    "ask again on a date": body(b"{}", b"429 Busy", b"Retry-After: Fri, 31 Dec 999999 23:59:59 GMT\r\n"),
    "empty": body(b""),
    "null": body(b"null"),
    "a number": body(b"1e400"),
    "a string": body(b'"ok"'),
    "NaN": body(b'{"error": {"code": 99999999999999999999999, "message": NaN}}'),
    "half JSON": body(SOUND[:-3]),
    "UTF-16": body(SOUND.decode().encode("utf-16")),
    "not UTF-8": body(b'{"choices": [{"message": {"content": "\xff\xfe\xed\xa0\x80"}}]}'),
    "lone surrogate": body(changed(model="\ud800", choices=[{"message": {"content": "\ud800 ###STOP###"}}])),
    "deep": body(nested(300)),
    "deeper": body(nested(100_000)),
    "deep list": body(b"[" * 200_000),
    "many keys": body(json.dumps({str(n): n for n in range(200_000)}).encode()),
    "keys twice": body(SOUND[:-1] + b',"choices":"no","usage":-1}'),
    "no choices": body(changed(choices=[])),
    "choices of another kind": body(changed(choices={"0": 1})),
    "choice null": body(changed(choices=[None])),
    "message a list": body(changed(choices=[{"message": [1]}])),
    "content a number": body(changed(choices=[{"message": {"content": 5}}])),
    "content parts": body(changed(choices=[{"message": {"content": [{"type": 7}, None, {"text": []}]}}])),
    "role of another": body(json.dumps(completion(role="system\n\nuser:")).encode()),
    "calls a string": body(json.dumps(completion(tool_calls="f()")).encode()),
    "calls of nothing": body(json.dumps(completion(tool_calls=[None, {}, {"function": 3}])).encode()),
    "call with evil names": body(
        json.dumps(completion(tool_calls=[{"id": EVIL, "function": {"name": EVIL, "arguments": EVIL}}])).encode()
    ),
    "call nested deep": body(
        json.dumps(completion(tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "[" * 50_000}}])).encode()
    ),
    "100,000 calls": body(json.dumps(completion(tool_calls=CALLS * 100_000)).encode()),
    "usage of 400 digits": body(SOUND.replace(b'"prompt_tokens": 3', b'"prompt_tokens": ' + b"9" * 400)),
    "usage negative": body(changed(usage={"prompt_tokens": -5, "completion_tokens": -(2**70)})),
    "usage of text": body(changed(usage={"prompt_tokens": "many", "completion_tokens": [], "cost": "x"})),
    "usage infinite": body(SOUND.replace(b'"prompt_tokens": 3', b'"prompt_tokens": 1e999')),
    "a megabyte of text": body(json.dumps(completion(content="word " * 200_000)).encode()),
    "control signs": body(json.dumps(completion(content=EVIL + "###STOP###")).encode()),
    "evil error": body(json.dumps({"error": {"message": EVIL, "code": EVIL, "type": [EVIL]}}).encode(), b"400 Bad"),
    "error of a megabyte": body(b"x" * 1_000_000, b"500 Bad"),
    "error nested deep": body(b'{"error":' * 10_000, b"500 Bad"),
    "error that is endless": forever(b"HTTP/1.1 500 Bad\r\n\r\n", _PIECE),
    "an event stream": body(b"data: {}\n\ndata: [DONE]\n\n", head=b"Content-Type: text/event-stream\r\n"),
    "a web page": body(b"<html><title>\x1b]0;owned\x07</title></html>", head=b"Content-Type: text/html\r\n"),
    "charset of nonsense": body(SOUND, head=b"Content-Type: application/json; charset=\x00evil\r\n"),
    "models by the million": body(changed(data=[{"id": f"m{n}"} for n in range(100_000)])),
    "models of no kind": body(changed(data=[None, 1, {"id": None}, {"id": {}, "max_model_len": -1}])),
    "model without end": body(changed(data=[{"id": "m" * 100_000, "max_model_len": 10**30}])),
    "model with control signs": body(changed(data=[{"id": EVIL}])),
    "the key in an error": quoting(lambda key: json.dumps({"error": {"message": f"bad {key}", "code": key}})),
    "the key in a page": quoting(lambda key: f"<html><title>{key}</title>{key}</html>", b"502 Bad"),
    "the key over lines": quoting(lambda key: f"bad {key[:9]}\n{key[9:]}", b"500 Bad"),
    "the key escaped": quoting(lambda key: "".join(f"\\u{ord(sign):04x}" for sign in key), b"500 Bad"),
    "the key in percent": quoting(lambda key: "".join(f"%{ord(sign):02X}" for sign in key), b"500 Bad"),
    "the key in capitals": quoting(lambda key: f"bad {key.upper()}, {key.lower()}", b"500 Bad"),
    "the key as text": quoting(lambda key: json.dumps(completion(content=f"{key} ###STOP###")), b"200 OK"),
    "the key as a model": quoting(lambda key: json.dumps(completion() | {"model": key}), b"200 OK"),
    "the key as a redirect": lambda asked: asked.whole(b"", b"302 Found", f"Location: /{asked.key}\r\n".encode()),
    "the key as a call": quoting(
        lambda key: json.dumps(completion(tool_calls=[{"id": key, "function": {"name": key, "arguments": key}}])),
        b"200 OK",
    ),
}  # fmt: skip


@dataclass
class Hostile:
    """A running one."""

    url: str
    used: set[str] = field(default_factory=set)
    """The attacks that somebody met."""


@contextmanager
def hostile(*names: str, calm_at_first: bool = False) -> Iterator[Hostile]:
    """A server that answers with these attacks in turn; `calm_at_first`: what a run asks before it begins, soundly."""
    over = threading.Event()
    turn, lock = cycle(names), threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = Hostile(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = _request(connection)
            if head is None:
                return
            with lock:
                calm = calm_at_first and (head.startswith(b"GET") or b"X-Session-ID: preflight" in head)
                name = "" if calm else next(turn)
            if calm:
                Asked(connection, head, over).whole(SOUND, head=b"Connection: close\r\n")
                return
            server.used.add(name)
            ATTACKS[name](Asked(connection, head, over))

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _request(connection: socket.socket) -> bytes | None:
    """The head of a whole request; its body is read, too."""
    data = b""
    connection.settimeout(_LONGEST_S)
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return None
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    left = (int(found[1]) if found else 0) - len(rest)
    while left > 0 and (piece := connection.recv(65536)):
        left -= len(piece)
    return head


def named(*beginnings: str) -> Sequence[str]:
    return [name for name in ATTACKS if name.startswith(beginnings)]
