"""The simulated server: CPU of its process for one chat request with 16 tools and 20 messages."""

from __future__ import annotations

import json
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.rows import Row
from tau2_fleet.simserver.scripts import write_script_file

_TOOLS = 16
_MESSAGES = 20
_LIMIT_MS = 0.8
_BODY = {
    "model": "agent",
    "messages": [
        {"role": "system", "content": "You serve a customer."},
        *({"role": ("user", "assistant")[number % 2], "content": "z" * 60} for number in range(_MESSAGES - 1)),
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": "d" * 300,
                "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        }
        for number in range(_TOOLS)
    ],
}


def rows(*, quick: bool) -> list[Row]:
    """The least of some stretches."""
    asked = 200 if quick else 1000
    with TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks.json"
        write_script_file(tasks, {})
        words = ["-m", "tau2_fleet.simserver", "--port", "0", "--model", "agent", "--tasks", str(tasks)]
        process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            port = int(process.stderr.readline().rsplit(":", 1)[1])
            connection = HTTPConnection("127.0.0.1", port)
            costs = [_cost_ms(connection, psutil.Process(process.pid), asked) for _ in range(5)]
            connection.close()
        finally:
            process.kill()
            process.communicate()
    name = f"simulated server/{_TOOLS} tools, {_MESSAGES} messages/cpu"
    return [Row(name, min(costs), None, "ms/request", limit=_LIMIT_MS, detail={"asked": asked})]


def _cost_ms(connection: HTTPConnection, server: psutil.Process, asked: int) -> float:
    body = json.dumps(_BODY)
    before = server.cpu_times()
    for _ in range(asked):
        connection.request("POST", "/v1/chat/completions", body, {"X-Session-ID": "bench/retail/0/0/agent"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the server answered {answer.status}")
    after = server.cpu_times()
    return 1000 * (after.user + after.system - before.user - before.system) / asked
