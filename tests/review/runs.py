"""Run directories of conversations that a script played, with and without faults; and a reviewer by a script."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.played import FAULTS, Place, play, script_of
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.record.line import encode_line

Json = dict[str, Any]
Fault = str | None


def record(task_id: str, fault: Fault = None, trial: int = 0, domain: str = "retail") -> Json:
    """A conversation by the gold actions of a task, with a fault in it."""
    found = load_domain(domain)
    [task] = found.tasks(ids=[task_id])
    script = script_of(task)
    if fault is not None:
        changed = FAULTS[fault](Place(found, task, script, random.Random(f"{task_id} {fault}")))
        assert changed is not None, f"{domain}/{task_id} has no room for {fault}"
        script = changed
    return asyncio.run(play(found, task, script, trial=trial))


def write(directory: Path, records: Sequence[Json]) -> Path:
    """A run directory of these."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "simulations.jsonl").write_bytes(b"".join(map(encode_line, records)))
    return directory


def lines(directory: Path) -> list[Json]:
    """What `reviews.jsonl` holds."""
    return [json.loads(line) for line in (directory / "reviews.jsonl").read_text().splitlines()]


def answer(asked: Json, *errors: Json) -> str:
    """An answer as it is asked for."""
    return json.dumps({"case": asked["case"], "errors": list(errors)})


def error(kind: str, turn: int, quote: str, severity: str = "major", effect: str = "hindered") -> Json:
    return {"kind": kind, "turn": turn, "severity": severity, "effect": effect, "quote": quote, "reason": "So it is."}


class Scripted:
    """A server that answers reviews by a script, and remembers who asked."""

    def __init__(self, script: Callable[[int, Json], str | int]) -> None:
        """`script` takes the number of the vote and what was asked; a number in place of a text is a status."""
        self.script = script
        self.asked: list[str] = []
        self.bodies: list[Json] = []
        self.url = ""

    @property
    def arguments(self) -> list[str]:
        """Of a command that asks it."""
        return [
            "--judge", "gpt-4.1", "judge.model=scripted", f"judge.base_url={self.url}/v1", "judge.lifetime=null",
            "judge.price.input=1", "judge.price.output=1",
        ]  # fmt: skip

    def reply(self, session: str, body: Json) -> str | int:
        if not session.startswith("review/"):
            return "Yes."
        self.asked.append(session)
        self.bodies.append(body)
        return self.script(int(session.rpartition("-")[2]), json.loads(body["messages"][-1]["content"]))


@contextmanager
def scripted(script: Callable[[int, Json], str | int]) -> Iterator[Scripted]:
    """Such a server, in a thread, while it is used."""
    served = Scripted(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = served.reply(self.headers.get("X-Session-ID") or "", body)
            if isinstance(text, int):
                self._send(text, {"error": {"message": "no json_schema here", "type": "invalid_request_error"}})
                return
            message = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 1000, "completion_tokens": 100}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(200, {"id": "1", "model": "scripted-1", "choices": [choice], "usage": usage})

        def do_GET(self) -> None:
            self._send(404, {"error": {"message": "not found"}})

        def _send(self, status: int, content: Json) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Whoever asked has been killed."""

    server = Quiet(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
