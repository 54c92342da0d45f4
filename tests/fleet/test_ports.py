"""Ports: free or held, by whom, and waiting for a dying predecessor's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet import ports
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.launch import cache_root
from tau2_fleet.fleet.ports import PortBook, free_ports, holder, is_free, wait_until_free
from tau2_fleet.fleet.reaper.processes import identify
from tests.fleet.support import QUICK, environment_for_runs, fake_pool, fake_settings
from tests.waiting import CEILING_S


def test_a_taken_port_names_the_process_that_holds_it(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        assert holder(port).pid == os.getpid()
        fleet = Fleet([fake_pool(tmp_path, 1)], fake_settings(tmp_path, start_port=port), tmp_path, watch=QUICK)
        with pytest.raises(UserError, match=rf"port {port} is held by process {os.getpid()} \(.*server\.start_port"):
            asyncio.run(fleet.start())
        assert all(status.pid is None for status in fleet.status())
    assert is_free("127.0.0.1", port)


def test_a_port_whose_connections_have_just_been_closed_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert is_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(UserError, match=r"server\.host=192\.0\.2\.1: cannot listen"):
        is_free("192.0.2.1", 1900)
    with pytest.raises(UserError, match="cannot be resolved"):
        is_free("no.such.host.invalid", 1900)


def test_free_ports_are_different_and_free() -> None:
    found = free_ports("127.0.0.1", 20)
    assert len(set(found)) == 20
    assert all(is_free("127.0.0.1", port) for port in found)


def test_a_run_waits_for_the_dying_servers_of_the_one_before(tmp_path: Path) -> None:
    """The first runner is killed; its deaf servers hold their ports until the reaper has ended them."""
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.fakes.runner", str(tmp_path), "wait"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment_for_runs(),
        start_new_session=True,
    )
    assert first.stdout is not None
    held = json.loads(first.stdout.readline())["ports"]
    assert [is_free("127.0.0.1", port) for port in held] == [False, False]
    first.kill()
    first.wait()

    async def second() -> None:
        book = PortBook(cache_root())
        await asyncio.gather(*(wait_until_free("127.0.0.1", port, book, CEILING_S) for port in held))
        assert [is_free("127.0.0.1", port) for port in held] == [True, True]

    asyncio.run(second())


def test_a_living_runs_port_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_DYING_PATIENCE_S", 0.0)

    async def scenario() -> None:
        fleet = Fleet([fake_pool(tmp_path, 1)], fake_settings(tmp_path), tmp_path, watch=QUICK)
        await fleet.start()
        try:
            [status] = fleet.status()
            assert status.port is not None
            with pytest.raises(UserError, match=rf"port {status.port} is held by process {status.pid}"):
                await wait_until_free("127.0.0.1", status.port, PortBook(cache_root()))
        finally:
            await fleet.stop()

    asyncio.run(scenario())


def test_notes_of_ports_do_not_pile_up(tmp_path: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    book = PortBook(tmp_path)
    for port in range(20_000, 20_300):
        book.claim(port, me)
        os.utime(tmp_path / "ports" / f"{port}.json", (0, 0))
    assert len(list((tmp_path / "ports").iterdir())) < 260
    book.claim(20_300, me)
    assert (tmp_path / "ports" / "20300.json").exists()
