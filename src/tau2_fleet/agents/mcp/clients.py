"""Client processes: started one per simulation, ended with everything under them, whatever happens to the run.

Each leads a session of its own, in a working directory of its own, and carries a mark that its descendants inherit; the
reaper process, which outlives a run that is killed, knows it before it runs. `agent.py` starts and ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tau2_fleet.fleet.launch import read_log
from tau2_fleet.fleet.reaper.processes import (
    MARK,
    SCRATCH_PREFIX,
    Group,
    ProcessId,
    end,
    identify,
    is_alive,
    members,
    remove_scratch,
)
from tau2_fleet.fleet.reaper.reaper import Reaper

_GATE = 'IFS= read -r _ && exec "$@" </dev/null'
"""What the shell runs first: it waits until the reaper has heard of the process, and ends if the run is gone."""
_FAREWELL_S = 2.0
"""In which a client may end by itself once its conversation is over."""
_GRACE_S = 1.0
"""Between SIGTERM and SIGKILL."""
_TOGETHER_S = 0.25
"""Clients that end within this time are looked after together: each look is at all processes of the machine."""
_GUARD_LOOK_S = 2.0
_MOST_PRINTED = 64 << 20
"""Bytes of output; a client that prints more is ended."""
_LAST_WORDS, _LAST_LINES = 800, 10
"""Characters and lines of a client's output that are told of."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Client:
    """One client process."""

    popen: subprocess.Popen[bytes]
    group: Group
    log: Path
    log_start: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Its own process has ended; others under it may go on."""
    overflowed: bool = False
    """It was ended because it printed too much."""

    @property
    def status(self) -> str:
        """How it ended, for people."""
        if self.overflowed:
            return f"it printed more than {_MOST_PRINTED >> 20} MiB"
        code = self.popen.poll()
        if code is None:
            return "it goes on"
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with status {code}"

    @property
    def printed(self) -> int:
        """Bytes of its output."""
        try:
            return self.log.stat().st_size - self.log_start
        except OSError:
            return 0

    @property
    def last_words(self) -> str:
        """The end of what it printed."""
        said = read_log(self.log, self.log_start, 2 * _LAST_WORDS)[-_LAST_WORDS:].strip()
        return "\n".join(said.splitlines()[-_LAST_LINES:]).replace(f"{self.group.scratch}/work", ".")


class Clients:
    """All client processes of a run, in one event loop."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes their output."""
        self._folder = folder
        self._reaper: Reaper | None = None
        self._starting = asyncio.Lock()
        self._ending: list[tuple[Client, asyncio.Future[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._running: set[Client] = set()
        self._wanted = asyncio.Event()

    async def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        files: Mapping[str, str],
        ended: Callable[[], None],
    ) -> Client:
        """Start a client.

        Args:
            name: of its log, without ending.
            environment: all of it, but for TMPDIR and the mark.
            files: by name, what it finds in its working directory.
            ended: called when its own process has ended.

        Raises:
            OSError: it cannot be started here.
        """
        await self._ensure_reaper()
        client = self._launch(name, command, environment, files)
        self._running.add(client)
        self._watch(client, ended)
        return client

    def _launch(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], files: Mapping[str, str]
    ) -> Client:
        assert self._reaper is not None
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        work = scratch / "work"
        work.mkdir()
        for file, text in files.items():
            (work / file).write_text(text, encoding="utf-8", errors="replace")
        mark = secrets.token_hex(16)
        path = self._folder / f"{name}.log"
        with open(path, "ab", opener=_for_its_owner) as output:
            log_start = output.tell()
            popen = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "client", *command],
                cwd=work,
                env={**environment, "TMPDIR": str(scratch), MARK: mark},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        group = Group(identify(popen.pid) or ProcessId(popen.pid, 0), mark, str(scratch))
        self._reaper.add(group)
        client = Client(popen, group, path, log_start)
        assert popen.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            popen.stdin.write(b"go\n")
            popen.stdin.close()
        return client

    async def end(self, client: Client, *, failed: bool = False) -> None:
        """Return when nothing of it is left; it has a moment to end by itself, unless it has failed."""
        if not failed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await client.ended.wait()
        self._running.discard(client)
        done = asyncio.get_running_loop().create_future()
        self._ending.append((client, done))
        self._wanted.set()
        await done

    async def close(self) -> None:
        """No more are started; whatever is left is ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reaper is not None:
            await asyncio.to_thread(self._reaper.close)

    async def _ensure_reaper(self) -> None:
        async with self._starting:
            if self._reaper is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._reaper = await asyncio.to_thread(Reaper, self._folder / "reaper.log")
                self._tasks = [asyncio.create_task(self._keep_watch()), asyncio.create_task(self._look_after())]

    async def _keep_watch(self) -> None:
        """See to it that there is always a reaper, and that no client fills the disk."""
        assert self._reaper is not None
        while True:
            await asyncio.sleep(_GUARD_LOOK_S)
            for client in self._running:
                if client.printed > _MOST_PRINTED and not client.overflowed:
                    client.overflowed = True
                    with contextlib.suppress(OSError):
                        os.killpg(client.popen.pid, signal.SIGKILL)
            if not await asyncio.to_thread(self._reaper.ensure):
                log.warning("the reaper of clients had ended; there is a new one (pid %d)", self._reaper.pid)

    def _watch(self, client: Client, ended: Callable[[], None]) -> None:
        """Hear of the end of its own process, without a thread for each."""
        loop = asyncio.get_running_loop()

        def over() -> None:
            client.popen.poll()
            client.ended.set()
            ended()

        try:
            handle = os.pidfd_open(client.popen.pid)
        except OSError:  # a kernel before 5.3
            loop.run_in_executor(None, client.popen.wait).add_done_callback(lambda _: over())
            return

        def readable() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            over()

        loop.add_reader(handle, readable)

    async def _look_after(self) -> None:
        """End clients as they come, those of a moment together."""
        assert self._reaper is not None
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_TOGETHER_S)
            self._wanted.clear()
            together, self._ending = self._ending, []
            try:
                await asyncio.to_thread(_end, [client for client, _ in together])
            finally:
                for client, done in together:
                    if not is_alive(client.group.leader):
                        client.popen.poll()
                        self._reaper.drop(client.group)
                    if not done.done():
                        done.set_result(None)


def _for_its_owner(path: str, flags: int) -> int:
    """Open a file that nobody else reads: what a client prints may hold its keys."""
    return os.open(path, flags, 0o600)


def _end(clients: Sequence[Client]) -> None:
    """End what is left of them; mostly nothing is, and one look says so."""
    groups = [client.group for client in clients]
    alive = [group for group in groups if is_alive(group.leader)]
    end(alive, _GRACE_S)
    others = [group for group in groups if group not in alive]
    if members(others):  # of a client that has ended, something goes on
        end(others, _GRACE_S)
    for group in others:
        remove_scratch(group.scratch)
