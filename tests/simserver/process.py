"""A real simulated server in a process of its own, and a small client for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tau2_fleet.simserver.scripts import write_script_file
from tests.waiting import CEILING_S

ROOT = Path(__file__).resolve().parents[2]
MODEL = "simulated-model"


@dataclass
class Client:
    """Asks for chat completions over one connection."""

    connection: HTTPConnection
    key: str | None

    def ask(self, session: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **more: Any) -> Any:
        """The assistant message of the answer."""
        body = {"model": MODEL, "messages": messages, **({"tools": tools} if tools else {}), **more}
        headers = {"X-Session-ID": session, **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = self.connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return json.loads(content)["choices"][0]["message"]


@dataclass
class RunningServer:
    """`key` is sent with every request; `options` is what it was started with."""

    process: subprocess.Popen[str]
    port: int
    key: str | None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = CEILING_S,
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        payload = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, payload, {**sent, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        status, content = self.request(method, path, body)
        assert status == 200, content
        return json.loads(content)

    def ask(self, session: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **more: Any) -> Any:
        """A chat completion; the assistant message."""
        return self.client().ask(session, messages, tools, **more)

    def client(self) -> Client:
        return Client(HTTPConnection("127.0.0.1", self.port, timeout=CEILING_S), self.key)

    def metrics(self) -> dict[str, float]:
        """Values by metric name, labels summed over."""
        values: dict[str, float] = {}
        for line in self.request("GET", "/metrics")[1].decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                bare = name.partition("{")[0]
                values[bare] = values.get(bare, 0.0) + float(value)
        return values


def command(port: int, tasks: Path, pool: str = "agent", options: Mapping[str, Any] | None = None) -> list[str]:
    """The command line that the supervisor uses."""
    return [
        *(sys.executable, "-m", "tau2_fleet.simserver", "--host", "127.0.0.1", "--port", str(port)),
        *("--model", MODEL, "--tasks", str(tasks), "--role-pool", pool, "--options", json.dumps(options or {})),
    ]


@contextmanager
def running(
    folder: Path,
    tasks: Mapping[str, Sequence[Any]] | None = None,
    pool: str = "agent",
    key: str | None = "secret-key",
    **options: Any,
) -> Iterator[RunningServer]:
    """A server that is ready, on a free port; it is ended on the way out."""
    script_file = folder / f"scripts-{pool}.json"
    write_script_file(script_file, tasks or {})
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
    if key is not None:
        environment["VLLM_API_KEY"] = key
    process = subprocess.Popen(
        command(0, script_file, pool, options), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert "listening on" in ready, ready + process.stderr.read()
        yield RunningServer(process, int(ready.rsplit(":", 1)[1]), key)
    finally:
        process.kill()
        process.communicate()
