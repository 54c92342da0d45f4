"""`ctl watch`: a run's screen in another terminal; `ctl tail`: its log. Neither holds it up, nor ends with it badly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from tau2_fleet.control import client
from tau2_fleet.control.messages import Status
from tau2_fleet.control.telling import facts, headline
from tau2_fleet.display.console import neutralise, out
from tau2_fleet.display.screen import Screen, line
from tau2_fleet.errors import UserError
from tau2_fleet.regular import open_file

LOG_FILE = "run.log"
_DRAW_S = 0.5
_LINE_S = 30.0
_LOOK_S = 0.3
_BLOCK = 2**16


def watch(run_dir: Path) -> Status:
    """Show how the run is until it has ended or died; what it was at last."""
    found = client.status(run_dir)
    if not out.is_terminal:
        next_line = 0.0
        while found.state.live:
            if time.monotonic() >= next_line:
                out.print(Text(f"{found.state.value}: {line(found.shown)}"))
                next_line = time.monotonic() + _LINE_S
            time.sleep(_DRAW_S)
            found = client.status(run_dir)
        return found
    with Live(_screen(run_dir, found), console=out, auto_refresh=False, transient=True) as live:
        while found.state.live:
            live.update(_screen(run_dir, found), refresh=True)
            time.sleep(_DRAW_S)
            found = client.status(run_dir)
    return found


def _screen(run_dir: Path, found: Status) -> RenderableType:
    parts: list[RenderableType] = [headline(run_dir, found), Screen(found.shown), *facts(found)]
    parts.append(Text("Ctrl-C leaves this screen; the run goes on", "dim"))
    return Group(*parts)


def tail(run_dir: Path, lines: int) -> Iterator[str]:
    """The last lines of the run's log, and what comes while the run goes on.

    Raises:
        UserError: it has none, or it cannot be read.
    """
    path = run_dir / LOG_FILE
    try:
        file = open_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        rest = _last(file.fileno(), lines)
        file.seek(0, os.SEEK_END)
        yield from (_safe(one) for one in rest)
        partial, over = b"", False
        while True:
            over = not client.status(run_dir).state.live
            while found := file.read(_BLOCK):
                *whole, partial = (partial + found).split(b"\n")
                yield from (_safe(one) for one in whole)
            if _moved(path, file.fileno()):
                file.close()
                file, partial = open_file(path), b""
                continue
            if over:
                return
            time.sleep(_LOOK_S)
    finally:
        file.close()


def _last(descriptor: int, lines: int) -> list[bytes]:
    """The last whole lines of a file, read from its end."""
    size = os.fstat(descriptor).st_size
    found = b""
    while size and found.count(b"\n") <= lines:
        block = min(size, _BLOCK)
        size -= block
        found = os.pread(descriptor, block, size) + found
    return found.splitlines()[-lines:] if lines else []


def _moved(path: Path, descriptor: int) -> bool:
    """Whether the log was moved aside, as it is when it grows large."""
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except OSError:
        return False


def _safe(one: bytes) -> str:
    return neutralise(one.decode("utf-8", "replace"))
