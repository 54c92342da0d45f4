"""Task files and model output are data: none of their control characters reaches the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.run.runs import ROOT, command, env, records

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\r\n[red]bold[/]"
"""Sets a window's title, clears the screen, turns the text round; and markup."""
DANGEROUS = ("\x1b]0;", "\x07", "\x1b[2J", "\x9b", "\u202e")


class Evil(BaseHTTPRequestHandler):
    """A model whose every text, tool name and argument is hostile, and whose errors are too."""

    protocol_version = "HTTP/1.1"
    asked = 0
    refuses = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked += 1
        message: dict[str, Any] = {"role": "assistant", "content": f"{EVIL} ###STOP###"}
        if body.get("tools") and type(self).asked % 2:
            call = {"name": f"tool{EVIL}", "arguments": json.dumps({f"argument{EVIL}": EVIL})}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": EVIL, "function": call}]}
        if self.refuses or type(self).asked % 9 == 0:
            self.answer(400, {"error": {"message": EVIL}})
        else:
            usage = {"prompt_tokens": 3, "completion_tokens": 3}
            self.answer(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "evil", "max_model_len": 32768}]})

    def answer(self, status: int, content: Any) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silence on standard error."""


@contextmanager
def evil_model(refuses: bool = False) -> Iterator[str]:
    handler = type("Handler", (Evil,), {"asked": 0, "refuses": refuses})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def evil_tasks(path: Path) -> Path:
    """Tasks of the benchmark with hostile ids and texts."""
    from tau2_fleet.benchmark.domains import load_domain

    tasks = [task.model_dump(mode="json") for task in load_domain("mock").tasks("base", limit=4)]
    for number, task in enumerate(tasks):
        task["id"] = f"{number}{EVIL}"
        task["user_scenario"]["instructions"] = EVIL
        task["evaluation_criteria"]["communicate_info"] = [EVIL]
    path.write_text(json.dumps(tasks))
    return path


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The run directory, what a pipe got of the run, and what a terminal got."""
    folder = tmp_path_factory.mktemp("evil")
    tasks = evil_tasks(folder / "tasks.json")
    with evil_model() as url:
        overrides = (
            *("experiment=smoke", "server=external", f"server.endpoints=[{url}]", "server.start_port=0"),
            "agent.model=evil",
            *(f"domain.mock.tasks={tasks}", "num_trials=2", "log_level=PROFILE", "server.preflight=false"),
            *("user_llm.provider=openai", "user_llm.model=evil", f"user_llm.base_url={url}/v1"),
        )
        piped = subprocess.run(command(folder / "piped", *overrides), cwd=ROOT, env=env({}), capture_output=True)
        shown = on_terminal(command(folder / "run", *overrides))
    return folder / "run", (piped.stdout + piped.stderr).decode(), shown


def on_terminal(words: list[str]) -> str:
    """All that a program writes to the terminal that it runs in."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        words, cwd=ROOT, env=env({"TERM": "xterm-256color"}), stdout=follower, stderr=follower, stdin=follower
    )
    os.close(follower)
    pieces = []
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the last one has closed it
            break
        pieces.append(piece)
        if not piece:
            break
    os.close(leader)
    process.wait()
    return b"".join(pieces).decode("utf-8", "replace")


def assert_harmless(text: str) -> None:
    for sequence in DANGEROUS:
        assert sequence not in text, repr(text[max(0, text.find(sequence) - 100) : text.find(sequence) + 50])


def test_a_run_shows_no_control_characters_of_tasks_and_models(evil_run: tuple[Path, str, str]) -> None:
    run_dir, piped, shown = evil_run
    found = records(run_dir)
    assert {"infrastructure_error", "user_stop"} <= {record["termination_reason"] for record in found}
    assert any(EVIL in str(message["content"]) for record in found for message in record["messages"])
    for text in (piped, shown):
        assert "owned" in text
        assert "Traceback" not in text
        assert_harmless(text)
    assert "\x1b" not in piped
    assert_harmless((run_dir / "run.log").read_text())


@pytest.mark.parametrize("arguments", [[], ["--failed"], ["--task", "mock/0"]])
def test_show_neither(evil_run: tuple[Path, str, str], arguments: list[str]) -> None:
    run_dir = evil_run[0]
    if arguments[:1] == ["--task"]:
        arguments = ["--task", f"mock/{records(run_dir)[0]['task_id']}"]
    text = on_terminal([sys.executable, "-m", "tau2_fleet", "show", str(run_dir), *arguments])
    assert "owned" in text, text
    assert "Traceback" not in text
    assert_harmless(text)
    assert not re.search("\x1b\\[2J", text)


def test_nor_does_the_error_of_a_model_that_refuses_from_the_start(tmp_path: Path) -> None:
    with evil_model(refuses=True) as url:
        model = ("user_llm.provider=openai", "user_llm.model=evil", f"user_llm.base_url={url}/v1")
        shown = on_terminal(command(tmp_path / "run", "experiment=smoke", *model))
    assert "1 of 1 models cannot be used" in shown
    assert "owned" in shown
    assert_harmless(shown)
