"""A stranger's server that answers at an address where ours should be: it never hears the fleet's key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.reaper.processes import Group, end, identify
from tau2_fleet.fleet.reaper.sockets import listens
from tau2_fleet.fleet.settings import HostsSettings
from tests.fleet.support import QUICK, fake_pool, fake_settings, own_port
from tests.waiting import Clock, until, wait_for

FAR = HostsSettings({"_target_": "benchmarks.hosts.Here"}, names=["h0"], python=sys.executable)


@contextlib.contextmanager
def stranger(port: int) -> Iterator[list[tuple[str, str | None]]]:
    """A server that says yes to everything; each path that it was asked, and with which key."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            body = json.dumps({"data": [{"id": "model", "max_model_len": 4096}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked
        server.shutdown()


@pytest.mark.parametrize("hosts", [HostsSettings(), FAR], ids=["local", "far"])
def test_a_stranger_at_the_address_of_a_server_of_ours_never_gets_the_key(
    hosts: HostsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, "tau2_fleet.fleet.supervisor")

    async def scenario() -> None:
        pool = fake_pool(tmp_path, 1, never_ready=True)
        fleet = Fleet((pool,), fake_settings(tmp_path, ready_timeout_s=300.0), tmp_path, watch=QUICK, hosts=hosts)
        starting = asyncio.create_task(fleet.start())
        try:
            await until(lambda: fleet.status() and fleet.status()[0].pid)
            with stranger(int(fleet.status()[0].url.rpartition(":")[2])) as asked:
                await until(lambda: asked)
                clock.forward(300.0)
                with pytest.raises(UserError, match="is answered by a process that is not this server's"):
                    await starting
                assert {path for path, _ in asked} == {"/health"}
                assert {key for _, key in asked} == {None}
        finally:
            await fleet.stop()

    asyncio.run(scenario())


def test_what_a_child_of_a_server_listens_on_is_the_servers() -> None:
    port = own_port(2)
    other = port + 1
    line = f"{sys.executable} -m http.server --bind 127.0.0.1 {port} & wait"
    process = subprocess.Popen(["sh", "-c", line], start_new_session=True, stderr=subprocess.DEVNULL)
    leader = identify(process.pid)
    assert leader is not None
    try:
        wait_for(lambda: not is_free("127.0.0.1", port))
        assert listens(Group(leader), port)
        with stranger(other):
            assert not listens(Group(leader), other)
    finally:
        end([Group(leader)], 1.0)
        process.wait()
