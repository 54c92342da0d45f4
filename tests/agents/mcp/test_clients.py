"""Client processes: what they find, what becomes of those that do not behave, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.agents.mcp import clients
from tau2_fleet.fleet.reaper.processes import MARK
from tau2_fleet.record.line import Record
from tests.agents.mcp.support import customer, scaffolds
from tests.run.runs import processes_with
from tests.simulation.scenes import Lines, reply, simulation
from tests.waiting import until

PLAYS = r"""
import json, os, urllib.request
def call(name, **arguments):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    head = {"Authorization": "Bearer " + os.environ["TAU2_MCP_TOKEN"]}
    asked = urllib.request.Request(os.environ["TAU2_MCP_URL"], json.dumps(body).encode(), head)
    return json.load(urllib.request.urlopen(asked, timeout=600))["result"]
"""


HANG = "import time; time.sleep(600)"


def play(folder: Path, program: str, user: Lines | None = None, **options: Any) -> Record:
    """A simulation whose client is this Python program."""
    path = folder / "client.py"
    path.write_text((PLAYS if "call(" in program else "import os\n") + program)

    async def scene() -> Record:
        command = [sys.executable, "-S", str(path)]
        chosen = {"command": command, "environment": {"OF_TEST": str(folder)}, **options}
        async with scaffolds(folder, **chosen) as ready:
            record = await simulation(Lines(), user or customer(), scaffolds=ready).run()
            await until(lambda: not processes_with("OF_TEST", folder))  # before the run ends
            return record

    return asyncio.run(scene())


def test_a_client_finds_what_it_needs_and_leaves_nothing_but_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "of the user, 123456")
    monkeypatch.setenv("ANOTHER_TOKEN", "not for it, 123456")
    record = play(
        tmp_path,
        """
import sys
from pathlib import Path
seen = {"env": dict(os.environ), "cwd": os.getcwd(), "files": {p.name: p.read_text() for p in Path().iterdir()}}
Path(os.environ["OF_TEST"], "seen.json").write_text(json.dumps(seen | {"argv": sys.argv, "input": sys.stdin.read()}))
Path("made.txt").write_text("x")
call("create_task", user_id="user_1", title="Important Meeting")
print("said:", call("send_message", message="Done."))
""",
        keys=["MY_API_KEY"],
    )
    assert (record.reward, record.error) == (1.0, None)
    seen = json.loads((tmp_path / "seen.json").read_text())
    env, token = seen["env"], seen["env"]["TAU2_MCP_TOKEN"]
    assert (env["MY_API_KEY"], "ANOTHER_TOKEN" in env, seen["input"]) == ("of the user, 123456", False, "")
    assert (env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"]) == (env["TAU2_MODEL_URL"], token)
    assert "127.0.0.1" in env["NO_PROXY"]
    assert token not in "".join(seen["argv"])
    assert token not in "".join(seen["files"].values())
    assert json.loads(seen["files"]["mcp.json"])["mcpServers"]["tau2"]["url"] == env["TAU2_MCP_URL"]
    assert seen["files"]["prompt.md"].rstrip().endswith("customer: Please create it.")
    assert Path(seen["cwd"]).is_relative_to(tempfile.gettempdir())
    assert not Path(seen["cwd"]).exists()
    assert "'over': True" in (tmp_path / "clients" / "mock-create_task_1-0.log").read_text()
    assert processes_with("OF_TEST", tmp_path) == []


@pytest.mark.parametrize(
    ("program", "options", "part", "last"),
    [
        ("print('I give up'); raise SystemExit(3)", {}, "it ended with status 3", "I give up"),
        ("import signal; print('ouch', flush=True); os.kill(os.getpid(), 9)", {}, "ended by signal 9", "ouch"),
        ("", {}, "it ended with status 0", "it printed nothing"),
        (f"print('hm', flush=True); {HANG}", {"turn_limit_s": 0.6}, "did nothing for 0.6 s", "hm"),
        (f"call('nothing'); {HANG}", {"time_limit_s": 0.7}, "took longer than 0.7 s", ""),
        ("print(os.environ['TAU2_MCP_TOKEN']); raise SystemExit(1)", {}, "status 1", "[token]"),
        ("os.write(1, bytes(range(256)) * 400)", {}, "status 0", "the last that it printed"),
    ],
    ids=["gives up", "killed", "silent", "hangs", "too long", "token", "nonsense"],
)
def test_a_client_that_fails_is_the_agents_error_with_its_last_words(
    tmp_path: Path, program: str, options: dict[str, Any], part: str, last: str
) -> None:
    record = play(tmp_path, program, **options)
    assert record.termination_reason == "agent_error"
    assert record.cost_unknown  # it may have asked models of its own
    assert part in (record.error or "")
    assert last in (record.error or "")
    assert len(record.error or "") < 3_000
    assert processes_with("OF_TEST", tmp_path) == []


def test_all_that_a_client_has_started_ends_with_its_conversation(tmp_path: Path) -> None:
    record = play(
        tmp_path,
        """
import signal, subprocess, sys, time
stay = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
for how in ({}, {"start_new_session": True}):
    child = subprocess.Popen([sys.executable, "-S", "-c", stay], stdout=subprocess.PIPE, **how)
    child.stdout.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(1)
        time.sleep(600)
    os._exit(0)
call("create_task", user_id="user_1", title="Important Meeting")
call("send_message", message="Done.")
""",
    )
    assert record.reward == 1.0
    assert processes_with("OF_TEST", tmp_path) == []


def test_a_last_message_counts_though_its_client_does_not_wait_for_the_answer(tmp_path: Path) -> None:
    record = play(
        tmp_path,
        """
import socket
call("create_task", user_id="user_1", title="Important Meeting")
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                   "params": {"name": "send_message", "arguments": {"message": "Done."}}})
host, port = os.environ["TAU2_MCP_URL"].split("/")[2].split(":")
with socket.create_connection((host, int(port))) as hasty:
    path = "/" + os.environ["TAU2_MCP_URL"].split("/", 3)[3]
    hasty.sendall(f"POST {path} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nAuthorization: Bearer "
                  f"{os.environ['TAU2_MCP_TOKEN']}\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
    if os.environ.get("SLOWLY"): hasty.recv(1)
""",
        environment={"SLOWLY": "1", "OF_TEST": str(tmp_path)},
        user=Lines(reply("Please create it."), reply("Thanks ###STOP###")),
    )
    assert (record.termination_reason, record.reward) == ("user_stop", 1.0)


def test_a_client_that_floods_the_disk_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_MOST_PRINTED", 1 << 20)
    monkeypatch.setattr(clients, "_GUARD_LOOK_S", 0.05)
    record = play(tmp_path, "while True: print('x' * 1000)")
    assert record.termination_reason == "agent_error"
    assert "it printed more than 1 MiB" in (record.error or "")
    assert (tmp_path / "clients" / "mock-create_task_1-0.log").stat().st_mode & 0o777 == 0o600


def test_a_program_that_is_no_program_is_named_by_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    record = play(tmp_path, "", command=[str(broken)])
    assert record.termination_reason == "agent_error"
    assert "status 12" in (record.error or "")


def test_clients_carry_a_mark_of_their_own_not_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, MARK, "of the run")
    record = play(tmp_path, f"print('mark', os.environ[{MARK!r}]); raise SystemExit(1)")
    assert "mark of the run" not in (record.error or "")
    assert "mark " in (record.error or "")
