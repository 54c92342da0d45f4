"""The socket of a run: who is answered, what a client can do to it (nothing), what it says of a loop that stands."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tau2_fleet.control import address, client, server
from tau2_fleet.control.beacon import CONTROL_FILE, read_beacon
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, State, Status, Verb
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.events import EventBus, bus_in_use
from tau2_fleet.telemetry.snapshot import DomainCounters, RunSnapshot
from tests.waiting import CEILING_S, until, wait_for


class Run:
    """A run that does what it is told, and counts."""

    def __init__(self) -> None:
        self.done: list[ControlRequest] = []
        self.threads: set[int] = set()
        self.buses: set[EventBus | None] = set()

    def status(self, lag_s: float, stack: tuple[str, ...]) -> Status:
        shown = RunSnapshot({"retail": DomainCounters(4, 1)}, DomainCounters(4, 1))
        return Status(State.running, "simulations", shown=shown, lag_s=lag_s, stack=stack)

    def do(self, request: ControlRequest, who: str) -> ControlAnswer:
        self.done.append(request)
        self.threads.add(threading.get_ident())
        self.buses.add(bus_in_use())
        return ControlAnswer(True, ("as you say",))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for module, limit in ((server, "_STUCK_S"), (server, "_LOOP_S"), (client, "_ANSWER_S")):
        monkeypatch.setattr(module, limit, CEILING_S)  # a busy machine is none that stands still


def played(run_dir: Path, run: Run, scene: Callable[[], Awaitable[None]]) -> None:
    """The scene beside an open socket."""

    async def play() -> None:
        with server.ControlServer(run_dir, run):
            await scene()

    asyncio.run(play())


def where(run_dir: Path) -> Path:
    beacon = read_beacon(run_dir)
    assert beacon is not None
    assert beacon.socket is not None
    return beacon.socket


def test_a_run_is_asked_in_its_event_loop_and_tells_its_status_from_outside(tmp_path: Path) -> None:
    run = Run()

    async def scene() -> None:
        found = await asyncio.to_thread(client.status, tmp_path)
        assert (found.state, found.shown.overall.done) == (State.running, 1)
        request = ControlRequest(Verb.cancel, "retail/5", 2)
        assert (await asyncio.to_thread(client.ask, tmp_path, request)).said == ("as you say",)
        assert run.done == [request]
        assert run.threads == {threading.get_ident()}
        assert run.buses == {bus_in_use()} != {None}, "what it begins tells its events to the run"

    played(tmp_path, run, scene)


def test_nothing_is_left_of_it_and_nobody_answers_after_the_end(tmp_path: Path) -> None:
    paths: list[Path] = []

    async def scene() -> None:
        paths.append(where(tmp_path))

    played(tmp_path, Run(), scene)
    assert not paths[0].exists()
    assert not (tmp_path / CONTROL_FILE).exists()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").touch()
    with pytest.raises(UserError, match="does not go on"):
        client.ask(tmp_path, ControlRequest(Verb.pause))


def test_another_user_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    monkeypatch.setattr(server, "peer", lambda connection: (1, os.geteuid() + 1))

    async def scene() -> None:
        with pytest.raises(UserError, match="does not answer"):
            await asyncio.to_thread(client.ask, tmp_path, ControlRequest(Verb.pause))

    (tmp_path / "simulations.jsonl").touch()
    played(tmp_path, run, scene)
    assert run.done == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("mode", [0o700, 0o777], ids=["by the folder", "by the socket"])
def test_another_user_cannot_even_connect(tmp_path: Path, mode: int) -> None:
    def attack() -> int:
        path = where(tmp_path)
        path.parent.chmod(mode)
        folder = os.open(path.parent, os.O_RDONLY)
        child = os.fork()
        if child == 0:
            os.fchdir(folder)  # past the folders above
            os.setuid(65534)
            try:
                socket.socket(socket.AF_UNIX).connect(path.name)
            except PermissionError:
                os._exit(0)
            os._exit(1)
        os.close(folder)
        return os.waitpid(child, 0)[1]

    async def scene() -> None:
        assert await asyncio.to_thread(attack) == 0

    played(tmp_path, Run(), scene)


@pytest.mark.parametrize(
    "sent",
    [b"", b"{", b"\xff\xfe\n", b"[]\n", b'{"do":"destroy"}\n', b'{"do":"set","key":5}\n', b'{"do":"pause","more":1}\n',
     b"x" * 200_000, b'{"do":"cancel","trial":"a"}\n', b"[" * 50_000 + b"\n"],
)  # fmt: skip
def test_whatever_a_client_sends_the_next_one_is_answered(tmp_path: Path, sent: bytes) -> None:
    run = Run()

    def attack() -> None:
        with address.connect(where(tmp_path), CEILING_S) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert client.status(tmp_path).state is State.running

    async def scene() -> None:
        await asyncio.to_thread(attack)

    played(tmp_path, run, scene)
    assert run.done == []


def test_a_client_that_says_nothing_holds_up_others_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CLIENT_S", 0.5)

    def attack() -> None:
        silent = [address.connect(where(tmp_path), CEILING_S) for _ in range(2)]
        begun = time.monotonic()
        assert client.status(tmp_path).state is State.running
        assert time.monotonic() - begun < 30
        for one in silent:
            one.close()

    async def scene() -> None:
        await asyncio.to_thread(attack)

    played(tmp_path, Run(), scene)


def test_a_loop_that_stands_still_is_told_of_with_its_place_and_nothing_is_done_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STUCK_S", 0.05)
    monkeypatch.setattr(server, "_LOOP_S", 0.1)
    run, over = Run(), threading.Event()

    def stands() -> bool:
        seen = client.status(tmp_path)
        return bool(seen.lag_s) and any("scene" in call and "test_server.py" in call for call in seen.stack)

    def look() -> None:
        try:
            wait_for(stands)
            answer = client.ask(tmp_path, ControlRequest(Verb.pause))
            assert not answer.done
            assert "has not answered" in answer.said[0]
        finally:
            over.set()

    async def scene() -> None:
        looking = asyncio.create_task(asyncio.to_thread(look))
        await asyncio.sleep(0)
        over.wait(CEILING_S)  # here the loop stands
        await looking

    played(tmp_path, run, scene)
    assert run.done == []


def test_the_heartbeat_goes_on_and_says_where_and_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BEAT_S", 0.02)

    async def scene() -> None:
        first = read_beacon(tmp_path)
        assert first is not None
        assert (first.pid, first.here, first.process() is not None) == (os.getpid(), True, True)
        await until(lambda: (now := read_beacon(tmp_path)) is not None and now.beat_s != first.beat_s)

    played(tmp_path, Run(), scene)


def test_a_run_without_room_for_a_socket_goes_on_with_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server, "listen", full)

    async def scene() -> None:
        assert json.loads((tmp_path / CONTROL_FILE).read_bytes())["socket"] is None

    played(tmp_path, Run(), scene)
