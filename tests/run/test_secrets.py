"""Keys live in memory and in the children that need them: nowhere else, whatever a run writes, prints or hears."""

from __future__ import annotations

import json
import secrets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.run.runs import ROOT, command, env, records

PLANTED = {
    "OPENAI_API_KEY": f"sk-proj-{secrets.token_urlsafe(36)}",
    "ANTHROPIC_API_KEY": f"sk-ant-api03-{secrets.token_urlsafe(36)}",
    "TOGETHER_API_KEY": secrets.token_hex(32),
    "NEBIUS_API_KEY": ".".join(secrets.token_urlsafe(24) for _ in range(3)),
    "WANDB_API_KEY": secrets.token_hex(20),
    "HF_TOKEN": f"hf_{secrets.token_hex(17)}",
}
SERVER = "tau2_fleet.simserver"
WANDB = "tau2_fleet.tracking.process"


@dataclass
class Child:
    """A process that the run started."""

    words: list[str]
    variables: dict[str, str]
    addresses: set[str] = field(default_factory=set)
    """On which it listened."""

    def runs(self, module: str) -> bool:
        return module in self.words


@dataclass
class Watched:
    """A run, and what could be seen of it from outside."""

    status: int
    output: bytes = field(repr=False)
    folder: Path
    children: dict[tuple[int, str], Child] = field(repr=False)
    command_lines: set[bytes] = field(repr=False)
    """Of all processes of the machine while it ran."""

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def fleet_keys(self) -> set[str]:
        """Learned where the servers learn them."""
        found = {child.variables.get("VLLM_API_KEY", "") for child in self.children.values() if child.runs(SERVER)}
        return found - {""}

    def files(self) -> Iterator[Path]:
        """Everything below the folder: the run directory, HOME and TMPDIR."""
        return (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())


def watch(folder: Path, *overrides: str, umask: int = 0o022) -> Watched:
    """Run with planted keys, a HOME and a TMPDIR of its own, and look at its processes all the while."""
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    environment = {**env({}), **PLANTED, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    with (folder / "output").open("wb") as output:
        process = psutil.Popen(
            command(folder / "run", *overrides),
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=umask,
        )
        children: dict[tuple[int, str], Child] = {}
        lines: set[bytes] = set()
        while process.poll() is None:
            lines |= all_command_lines()
            look_at_children(process, children)
            time.sleep(0.02)
    text = (folder / "output").read_bytes()
    (folder / "output").unlink()
    return Watched(process.returncode, text, folder, children, lines)


def look_at_children(process: psutil.Process, children: dict[tuple[int, str], Child]) -> None:
    for child in descendants(process):
        try:
            own, words = process.cmdline(), child.cmdline()
            if not words or words == own:  # forked, and not yet another program
                continue
            seen = children.setdefault((child.pid, words[0]), Child(words, child.environ()))
            for connection in child.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    seen.addresses.add(connection.laddr.ip)
        except (psutil.Error, OSError):
            continue


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def all_command_lines() -> set[bytes]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes())
        except OSError:
            continue
    return found


def forms(value: str) -> set[bytes]:
    """A key as it may stand in a file."""
    return {value.encode(), json.dumps(value)[1:-1].encode()}


def assert_nowhere(watched: Watched, keys: Mapping[str, str], *, began: bool = True) -> None:
    """No key in a file, its name, the output, or on a command line; a run that never began leaves no file."""
    contents = {str(path): path.read_bytes() for path in watched.files()}
    assert len(contents) > 3 if began else not contents
    for name, value in keys.items():
        for form in forms(value):
            assert form not in watched.output, f"{name} was printed"
            assert not [path for path in contents if value in path], f"{name} is in a file name"
            assert not [path for path, content in contents.items() if form in content], f"{name} was written"
            assert not [line for line in watched.command_lines if form in line], f"{name} is on a command line"


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watch(
        tmp_path_factory.mktemp("calm"),
        *("experiment=smoke", "wandb=offline", "log_level=DEBUG", "num_trials=2"),
        *("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.01"),
    )


def test_no_key_is_written_or_printed_or_on_a_command_line(calm: Watched) -> None:
    assert calm.status == 0, calm.output.decode()
    assert list((calm.run_dir / "wandb").rglob("*.wandb")), "nothing was recorded for W&B"
    (fleet_key,) = calm.fleet_keys
    assert_nowhere(calm, {**PLANTED, "the fleet's key": fleet_key})


def servers_of(watched: Watched) -> list[Child]:
    """What a server forks has its words until it is another program, but listens nowhere."""
    return [child for child in watched.children.values() if child.runs(SERVER) and child.addresses]


def test_children_get_only_the_keys_that_they_need(calm: Watched) -> None:
    own = {name: value for name, value in PLANTED.items() if name != "WANDB_API_KEY"}
    assert len(servers_of(calm)) == 2
    assert any(child.runs(WANDB) for child in calm.children.values())
    for child in calm.children.values():
        held = {name for name, value in own.items() for text in child.variables.values() if value in text}
        assert not held, child.words
        if child.runs(SERVER):
            assert PLANTED["WANDB_API_KEY"] not in child.variables.values()
        else:
            assert "VLLM_API_KEY" not in child.variables or "/bin/sh" in child.words, child.words


def test_servers_listen_on_loopback_only(calm: Watched) -> None:
    assert [child.addresses for child in servers_of(calm)] == [{"127.0.0.1"}] * 2
    assert set().union(*(child.addresses for child in calm.children.values())) <= {"127.0.0.1", "::1"}


def test_run_directories_follow_the_users_umask(calm: Watched, tmp_path: Path) -> None:
    assert stat.S_IMODE(calm.run_dir.stat().st_mode) == 0o755
    assert stat.S_IMODE((calm.run_dir / "simulations.jsonl").stat().st_mode) == 0o644
    private = watch(tmp_path, "experiment=smoke", "task_ids=[create_task_1]", umask=0o077)
    assert private.status == 0, private.output.decode()
    open_to_others = [path for path in private.run_dir.rglob("*") if path.stat().st_mode & 0o077]
    assert not open_to_others
    assert stat.S_IMODE(private.run_dir.stat().st_mode) == 0o700


HEARD: set[str] = set()
"""Every header `Authorization` that an Echo got."""


class Echo(BaseHTTPRequestHandler):
    """A provider that says back the key that it was sent, in every way an answer can."""

    protocol_version = "HTTP/1.1"
    preflight_status = 200
    asked = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Authorization"] or ""
        HEARD.add(key)
        assert json.loads(body)["messages"]
        if self.headers["X-Session-ID"] == "preflight":
            self.answer(type(self).preflight_status, completion("ready"), {"error": {"message": f"bad key: {key}"}})
            return
        type(self).asked += 1
        match type(self).asked % 5:
            case 0:
                self.answer(400, {}, {"error": {"message": f"Incorrect API key provided: {key}.", "code": key}})
            case 1:
                self.answer(200, completion(f"Your key is {key} ###STOP###"), {})
            case 2:
                self.answer(200, f"<html>{key}</html>", {})
            case 3:
                self.answer(403, {}, f"<html>{key.removeprefix('Bearer ')} is forbidden</html>")
            case _:
                self.answer(200, {"choices": key}, {})

    def answer(self, status: int, good: Any, bad: Any) -> None:
        chosen = good if status == 200 else bad
        content = chosen.encode() if isinstance(chosen, str) else json.dumps(chosen).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silence on standard error."""


def completion(text: str) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    }


@contextmanager
def echoing(preflight_status: int = 200) -> Iterator[str]:
    handler = type("Handler", (Echo,), {"preflight_status": preflight_status, "asked": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def provider(url: str) -> list[str]:
    return [
        "experiment=smoke",
        "user_llm.provider=openai",
        "user_llm.model=echo",
        f"user_llm.base_url={url}",
        "user_llm.api_key_env=TOGETHER_API_KEY",
        "log_level=DEBUG",
    ]


def test_a_key_that_a_provider_says_back_is_kept_out_too(tmp_path: Path) -> None:
    with echoing() as url:
        watched = watch(tmp_path, *provider(url), "limits.call_timeout_s=3", "wandb=offline")
    assert watched.status == 3, watched.output.decode()
    found = records(watched.run_dir)
    assert len(found) == 9
    assert any("[redacted]" in str(record["messages"]) for record in found)
    assert any("[key]" in (record["error"] or "") for record in found)
    assert_nowhere(watched, PLANTED)


@pytest.mark.parametrize(
    ("key", "value", "header"),
    [
        ("basic_auth_env", "me:pass-word9", "Basic bWU6cGFzcy13b3JkOQ=="),
        ("api_key_env", "tenletters", "Bearer tenletters"),
    ],
)
def test_what_a_gateway_of_ones_own_wants_reaches_it_and_stays_out_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, header: str
) -> None:
    """Under a variable of any name, and even if it is short."""
    monkeypatch.setitem(PLANTED, "GATE", value)
    with echoing() as url:
        HEARD.clear()
        chosen = [setting for setting in provider(url) if "api_key_env" not in setting]
        watched = watch(tmp_path, *chosen, f"user_llm.{key}=GATE", "limits.call_timeout_s=2", "num_tasks=4")
    assert watched.status == 3, watched.output.decode()
    assert {header} == HEARD
    told = {"password": value.rpartition(":")[2], "header": header.partition(" ")[2]}
    assert any("[redacted]" in str(record["messages"]) for record in records(watched.run_dir))
    assert_nowhere(watched, PLANTED | told)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_key_that_is_refused_at_the_start_is_not_shown(tmp_path: Path, status: int) -> None:
    with echoing(preflight_status=status) as url:
        watched = watch(tmp_path, *provider(url))
    assert watched.status == 1
    assert b"1 of 1 models cannot be used" in watched.output
    assert b"Traceback" not in watched.output
    assert_nowhere(watched, PLANTED, began=False)


def test_a_key_on_the_command_line_is_refused_without_being_repeated() -> None:
    key = PLANTED["OPENAI_API_KEY"]
    process = subprocess.run(
        [sys.executable, "-m", "src.main", "experiment=smoke", f"+user_llm.extra_body.key={key}"],
        cwd=ROOT,
        env={**env({}), **PLANTED},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "user_llm.extra_body" in process.stderr
    assert key not in process.stdout + process.stderr
