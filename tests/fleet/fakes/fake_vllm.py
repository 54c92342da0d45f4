"""A stand-in for `vllm serve`: the same command line, endpoints and bad habits, ready in a tenth of a second.

What it shall do is told by `--fake '{...}'` in extra_args; see `Habits`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Habits:
    """What a test asks of the fake server."""

    log: str = ""
    """Text to write at the start."""
    status: int | None = None
    """Exit with this status after writing the log."""
    status_unless: str = ""
    """Exit so only while this file is missing."""
    status_once: str = ""
    """Exit so only the one server that makes this file."""
    deaf: bool = False
    """SIGTERM is swallowed."""
    children: bool = False
    """Starts one child in its group and one in a session of its own, both deaf to SIGTERM."""
    never_ready: bool = False
    content: str = "It is sunny."
    """Text of every answer."""
    calls: bool = True
    """Whether a request with tools is answered with a call."""
    served: str = ""
    """Another model id than the right one."""
    max_model_len: int = 4096
    die_on: str = ""
    """Ends with status 0 when a request holds this text."""
    stall_while: str = ""
    """Answers no request while the file of this name with its port behind it is there; with a text in it, it counts
    tokens all the while."""


CHILD = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "time.sleep(600)"
)


def main() -> None:
    if "--help=all" in sys.argv or "--help" in sys.argv:
        print(HELP)
        return
    parser = argparse.ArgumentParser("vllm serve", allow_abbrev=False)
    parser.add_argument("serve")
    parser.add_argument("model")
    for flag in ("--host", "--port", "--served-model-name", "--tool-call-parser", "--chat-template"):
        parser.add_argument(flag)
    parser.add_argument("--tensor-parallel-size")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--fake", default="{}")
    arguments = parser.parse_args()
    habits = Habits(**json.loads(arguments.fake))
    print(habits.log, flush=True)
    if habits.status is not None and is_to_fail(habits):
        sys.exit(habits.status)
    if habits.deaf:
        signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM, and I stay", flush=True))
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if habits.children:
        command = [sys.executable, "-S", "-c", CHILD]
        pids = [subprocess.Popen(command, start_new_session=apart).pid for apart in (False, True)]
        print("children", *pids, flush=True)
    while habits.never_ready:
        time.sleep(1)
    server = ThreadingHTTPServer((arguments.host, int(arguments.port)), handler(arguments, habits))
    server.daemon_threads = True
    server.serve_forever()


def is_to_fail(habits: Habits) -> bool:
    if habits.status_once:
        try:
            os.close(os.open(habits.status_once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
    return not (habits.status_unless and os.path.exists(habits.status_unless))


def handler(arguments: argparse.Namespace, habits: Habits) -> type[BaseHTTPRequestHandler]:
    model = habits.served or arguments.served_model_name or arguments.model
    counts = {"requests": 0}
    stall = habits.stall_while and f"{habits.stall_while}.{arguments.port}"
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                self.answer(200, b"")
            elif self.path == "/metrics":
                busy = os.path.exists(stall) and os.path.getsize(stall)
                tokens = 10.0 * counts["requests"] + (time.monotonic() if busy else 0)
                text = (
                    f'vllm:num_requests_running{{engine="0"}} 1.0\nvllm:kv_cache_usage_perc{{engine="0"}} 0.25\n'
                    f'vllm:prompt_tokens_total{{engine="0"}} {tokens}\n'
                )
                self.answer(200, text.encode())
            elif not self.allowed():
                self.answer(401, b'{"error": "Unauthorized"}')
            else:
                if habits.served:
                    print("asked for the models", flush=True)
                limit = arguments.max_model_len or habits.max_model_len
                entry = {"id": model, "object": "model", "max_model_len": limit}
                self.answer(200, json.dumps({"object": "list", "data": [entry]}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.allowed():
                self.answer(401, b'{"error": "Unauthorized"}')
                return
            if habits.die_on and habits.die_on.encode() in body:
                os._exit(0)
            while os.path.exists(stall):
                time.sleep(0.05)
            with lock:
                counts["requests"] += 1
            request = json.loads(body)
            message: dict[str, Any] = {"role": "assistant", "content": habits.content}
            if request.get("tools") and habits.calls:
                call = {"name": request["tools"][0]["function"]["name"], "arguments": "{}"}
                message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": call}]}
            usage = {"prompt_tokens": 10, "completion_tokens": 3}
            self.answer(200, json.dumps({"choices": [{"message": message}], "usage": usage}).encode())

        def allowed(self) -> bool:
            key = os.environ.get("VLLM_API_KEY")
            return not key or self.headers.get("Authorization") == f"Bearer {key}"

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


HELP = """usage: vllm serve [model_tag] [options]
options:
  --host HOST
  --port PORT
  --served-model-name NAME
  --tensor-parallel-size N, -tp N
  --max-model-len N
  --enable-auto-tool-choice, --no-enable-auto-tool-choice
  --tool-call-parser {hermes,mistral}
  --chat-template FILE
"""

if __name__ == "__main__":
    main()
