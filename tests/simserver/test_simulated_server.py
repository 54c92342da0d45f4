"""The server process: its endpoints, its manners towards clients, its life."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.simserver.scripts import write_script_file
from tests.simserver.process import MODEL, ROOT, RunningServer, command, running
from tests.waiting import CEILING_S, wait_for

TASK = {
    "id": "a/b [1]",
    "evaluation_criteria": {
        "actions": [{"requestor": "assistant", "name": "look_up", "arguments": {"id": "7", "n": 3.0}}],
        "communicate_info": ["42"],
    },
}
SESSION = "abcdef01/shop/a%2Fb%20%5B1%5D/0"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "n": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "required": ["id", "n"],
        },
    },
}
OTHER_TOOL = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
HELLO = [{"role": "system", "content": "x" * 400}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("server"), {"shop": [TASK]}, max_model_len=3000) as started:
        yield started


def chat(server: RunningServer, **body: Any) -> tuple[int, Any]:
    status, content = server.request(
        "POST",
        "/v1/chat/completions",
        {"model": MODEL, "messages": HELLO, **body},
        {"X-Session-ID": f"{SESSION}/agent"},
    )
    return status, json.loads(content)


def test_it_serves_what_a_vllm_server_serves(server: RunningServer) -> None:
    assert server.request("GET", "/health") == (200, b"")
    models = server.json("GET", "/v1/models")["data"]
    assert [(card["id"], card["max_model_len"]) for card in models] == [(MODEL, 3000)]
    assert "version" in server.json("GET", "/version")
    assert server.json("GET", "/load") == {"server_load": 0}


def test_a_chat_answer_has_the_openai_form_and_the_gold_call(server: RunningServer) -> None:
    status, answer = chat(server, tools=[OTHER_TOOL, TOOL])
    assert status == 200
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    function = choice["message"]["tool_calls"][0]["function"]
    assert (function["name"], function["arguments"]) == ("look_up", '{"id":"7","n":3.0}')
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_the_prompt_tokens_of_usage_are_those_of_tokenize(server: RunningServer) -> None:
    counted = server.json("POST", "/tokenize", {"model": MODEL, "messages": HELLO, "tools": [TOOL]})["count"]
    assert chat(server, tools=[TOOL], temperature=1.0)[1]["usage"]["prompt_tokens"] == counted > 100


@pytest.mark.parametrize(
    ("choice", "name", "reason"),
    [
        ("auto", "look_up", "tool_calls"),
        ("required", "look_up", "tool_calls"),
        ({"type": "function", "function": {"name": "other"}}, "other", "stop"),
        ("none", None, "stop"),
    ],
)
def test_tool_choice_is_obeyed(server: RunningServer, choice: Any, name: str | None, reason: str) -> None:
    _, answer = chat(server, tools=[TOOL, OTHER_TOOL], tool_choice=choice)
    message = answer["choices"][0]["message"]
    assert [call["function"]["name"] for call in message.get("tool_calls", [])] == ([name] if name else [])
    assert answer["choices"][0]["finish_reason"] == reason


def test_max_tokens_cuts_the_answer(server: RunningServer) -> None:
    _, answer = chat(server, max_tokens=2)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["message"]["content"]) == 8
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{not json", 400, "not JSON"),
        (b"[]", 400, "JSON object"),
        ({"model": "other", "messages": HELLO}, 404, "does not exist"),
        ({"model": MODEL, "messages": []}, 400, "at least one message"),
        ({"model": MODEL, "messages": HELLO, "tools": []}, 400, "empty"),
        ({"model": MODEL, "messages": HELLO, "tools": [{"type": "function"}]}, 400, "function with a name"),
        ({"model": MODEL, "messages": HELLO, "max_tokens": 0}, 400, "at least 1"),
        ({"model": MODEL, "messages": HELLO, "max_tokens": 2950}, 400, "maximum context length is 3000"),
        ({"model": MODEL, "messages": [{"role": "user", "content": "x" * 12000}]}, 400, "reduce the length"),
        ({"model": MODEL, "messages": HELLO, "stream": True}, 400, "stream"),
        ({"model": MODEL, "messages": HELLO, "tool_choice": "required"}, 400, "needs tools"),
        ({"model": MODEL, "messages": ["hello"]}, 400, "messages"),
    ],
)
def test_a_wrong_request_is_refused_in_the_openai_form(
    server: RunningServer, body: Any, status: int, words: str
) -> None:
    got, content = server.request("POST", "/v1/chat/completions", body)
    error = json.loads(content)["error"]
    assert (got, error["code"]) == (status, status)
    assert words in error["message"]


def test_the_key_is_asked_for_on_v1_and_nowhere_else(server: RunningServer) -> None:
    stranger = RunningServer(server.process, server.port, None)
    for headers in ({}, {"Authorization": "Bearer secret-keys"}, {"Authorization": "Basic secret-key"}):
        assert stranger.request("GET", "/v1/models", headers=headers)[0] == 401
        assert stranger.request("POST", "/v1/chat/completions", {"messages": HELLO}, headers)[0] == 401
    assert stranger.request("GET", "/health")[0] == 200
    assert stranger.request("GET", "/metrics")[0] == 200


def test_a_server_without_a_key_is_open(tmp_path: Path) -> None:
    with running(tmp_path, key=None) as server:
        assert server.request("GET", "/v1/models")[0] == 200


def test_unknown_paths_and_methods_are_answered_as_such(server: RunningServer) -> None:
    assert server.request("GET", "/nothing")[0] == 404
    assert server.request("GET", "/v1/chat/completions")[0] == 405


def test_metrics_count_requests_and_tokens(server: RunningServer) -> None:
    before = server.metrics()
    usage = chat(server, tools=[TOOL])[1]["usage"]
    after = server.metrics()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["vllm:prompt_tokens_total"] == usage["prompt_tokens"]
    assert grown["vllm:generation_tokens_total"] == usage["completion_tokens"]
    assert grown["vllm:request_success_total"] == 1
    assert grown["vllm:tool_call_parser_invocations_total"] == 1
    assert grown["vllm:e2e_request_latency_seconds_count"] == 1
    assert after["vllm:num_requests_running"] == 0
    assert {"vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"} <= set(after)


def test_a_request_in_flight_is_counted_as_running_and_as_aborted_when_its_client_leaves(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("roles: {agent: {0.0: 3600, 1.0: 3601}}")
    with running(tmp_path, latency=str(tmp_path / "slow.yaml")) as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({"messages": HELLO}), {"Authorization": f"Bearer {server.key}"}
        )
        wait_for(lambda: server.metrics()["vllm:num_requests_running"] == 1)
        assert server.json("GET", "/load") == {"server_load": 1}
        connection.close()
        wait_for(lambda: server.metrics()["vllm:num_requests_running"] == 0)
        assert server.metrics()["vllm:request_success_total"] == 1  # finished_reason="abort"


def raw(server: RunningServer, *pieces: bytes) -> bytes:
    """What the server sends for bytes that arrive in pieces, until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=CEILING_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def test_a_request_may_come_in_pieces_in_chunks_and_close_behind_another(server: RunningServer) -> None:
    body = json.dumps({"prompt": "y" * 40}).encode()
    plain = b"POST /tokenize HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunked = b"POST /tokenize HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunked += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    everything = plain + plain + chunked
    answer = raw(server, *(everything[start : start + 7] for start in range(0, len(everything), 7)))
    assert answer.count(b'"count":10') == 3
    assert answer.count(b"HTTP/1.1 200") == 3


def test_a_client_that_asks_whether_to_continue_is_told_so(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=CEILING_S) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b'{"prompt":"x"}')
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 70000, 431),
    ],
)
def test_bytes_that_are_no_request_get_an_error_and_harm_nobody(
    server: RunningServer, sent: bytes, status: int
) -> None:
    assert raw(server, sent).startswith(b"HTTP/1.1 %d" % status)
    assert server.request("GET", "/health")[0] == 200


def test_many_requests_share_a_connection(server: RunningServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for _ in range(5):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b""
        assert connection.sock.getsockname()[1] == port
    connection.close()


def test_sigterm_ends_it_at_once_with_status_0_even_with_requests_in_flight(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("roles: {agent: {0.0: 3600, 1.0: 3601}}")
    with running(tmp_path, latency=str(tmp_path / "slow.yaml"), key=None) as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": HELLO}))
        wait_for(lambda: server.metrics()["vllm:num_requests_running"] == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=CEILING_S) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latencie": "x"}, "unknown key 'latencie'"),
        ({"seed": "1"}, "wrong type"),
        ({"latency": "no-such-profile"}, "no such file"),
    ],
)
def test_what_it_cannot_do_it_says_in_a_line(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    write_script_file(tmp_path / "tasks.json", {})
    done = subprocess.run(
        command(0, tmp_path / "tasks.json", options=options), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_named(tmp_path: Path, server: RunningServer) -> None:
    write_script_file(tmp_path / "tasks.json", {})
    done = subprocess.run(command(server.port, tmp_path / "tasks.json"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "address already in use" in done.stderr.lower()


def test_the_server_imports_nothing_heavy() -> None:
    code = "import sys, tau2_fleet.simserver.__main__; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("tau2", "pydantic", "hydra", "omegaconf", "aiohttp", "yaml", "rich", "litellm", "pandas", "wandb"):
        assert f"'{heavy}'" not in modules
