"""`make pictures`: the pictures of README and docs, made from a run on simulated models. Needs Chromium for the pages.

The terminal is read as a terminal shows it (pyte) in the middle of the run; the pages are photographed by Chromium. A
second run, of a model that errs less, is what the first one is compared with.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.browser.chromium import chromium

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
RUN = (
    "experiment=simulated",
    "agent.model=checkpoints/step-100",
    "max_concurrency=96",
    "server.num=4",
    "user_llm.pool.num=2",
    "server.simulated.engine.on=true",
    "server.simulated.engine.prefill_tokens_per_s=100000",
    "server.simulated.prefix_cache_tokens=400000",
    "server.simulated.faults.rate=0.02",
    "server.simulated.faults.kinds=[tool_unknown]",
    "max_steps=40",
    "max_errors=1",
)
"""Replies that go wrong and narrow limits, so that there is something to explain."""
BETTER = (*RUN, "agent.model=checkpoints/step-200", "server.simulated.faults.rate=0.005", "seed=301")
_COLUMNS, _ROWS = 110, 30
_MIDDLE = 0.55
"""How far the run is when the terminal is read."""
_ELSEWHERE = re.compile(r',\s*url\("https://[^;]*;')
_COLORS = {"brown": "yellow", "brightblack": "bright_black", "default": None}


def photograph_terminal(command: list[str], cwd: Path, picture: Path) -> None:
    """Run a command in a terminal and draw what that shows when about half of the simulations are done.

    Raises:
        RuntimeError: the command failed, or never came so far.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(_COLUMNS), LINES=str(_ROWS))
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    screen = pyte.Screen(_COLUMNS, _ROWS)
    stream = pyte.ByteStream(screen)
    drawn = False
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        try:
            read = os.read(terminal, 65536) if ready else b""
        except OSError:  # its other end is closed
            break
        if ready and not read:
            break
        stream.feed(read)
        if not drawn and not ready and _share_done(screen) >= _MIDDLE:
            _draw(screen, picture)
            drawn = True
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not drawn or status != 0:
        raise RuntimeError(f"the run ended with {status}, " + "\n".join(screen.display))


def _share_done(screen: pyte.Screen) -> float:
    """Of the simulations, by the line of all domains; 0 while there is none."""
    for line in screen.display:
        for word in line.split():
            done, slash, of = word.partition("/")
            if line.split()[0] in ("all", "overall", "total") and slash and done.isdigit() and of.isdigit():
                return int(done) / int(of)
    return 0.0


def _draw(screen: pyte.Screen, picture: Path) -> None:
    console = Console(width=_COLUMNS, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115
    last = max((row for row in range(_ROWS) if screen.display[row].strip()), default=0)
    for row in range(last + 1):
        line = Text()
        for column in range(_COLUMNS):
            cell = screen.buffer[row][column]
            line.append(cell.data, Style(color=_color(cell.fg), bold=cell.bold, reverse=cell.reverse))
        line.rstrip()
        console.print(line, no_wrap=True)
    drawn = console.export_svg(title="tau2-fleet run")
    picture.write_text(_ELSEWHERE.sub(";", drawn), encoding="utf-8")  # the font of this machine will do


def _color(name: str) -> str | None:
    if name in _COLORS:
        return _COLORS[name]
    return f"#{name}" if len(name) == 6 and all(letter in "0123456789abcdef" for letter in name) else name


async def photograph_report(report: Path, conversation: str) -> None:
    """The first screen of a report, and a conversation in it."""
    with tempfile.TemporaryDirectory() as profile:
        async with chromium(Path(profile)) as page:
            await page.size(1200, 860)
            await page.open(report)
            await page.picture(PICTURES / "report.png")
            await page.open(report, f"#{conversation}")
            await page.until("document.querySelectorAll('.turn').length > 0")
            await page.picture(PICTURES / "conversation.png")


async def photograph_comparison(page_of_both: Path) -> None:
    """The first screen of a comparison."""
    with tempfile.TemporaryDirectory() as profile:
        async with chromium(Path(profile)) as page:
            await page.size(1200, 980)
            await page.open(page_of_both, ready="document.readyState === 'complete'")
            await page.picture(PICTURES / "compare.png")


def compare_and_analyze(program: str, run: Path) -> None:
    """Another run and the page of both, and what `analyze` draws of the first."""

    def call(*words: str) -> None:
        subprocess.run([program, *words], cwd=run.parent, check=True, stdout=subprocess.DEVNULL)

    call("run", *BETTER, "hydra.run.dir=better")
    call("compare", "--baseline", run.name, "--candidate", "better", "-o", "compare.html")
    asyncio.run(photograph_comparison(run.parent / "compare.html"))
    call("analyze", run.name, "--output", "analysis")
    shutil.copyfile(run.parent / "analysis" / "timeline.png", PICTURES / "timeline.png")


def _one_that_failed(run: Path) -> str:
    """The key of a conversation of a dozen messages that lost its reward."""
    import tau2_fleet.record

    frame = tau2_fleet.record.read(run)
    failed = frame[(frame.reward < 1) & (frame.domain == "retail")]
    row = failed.iloc[(failed.messages - 12).abs().argsort().iloc[0]]
    return f"{row.domain}/{row.task_id}/{row.trial}"


def main() -> int:
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    program = str(Path(sys.executable).parent / "tau2-fleet")
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        run = Path(folder, "run")
        photograph_terminal([program, "run", *RUN, f"hydra.run.dir={run}"], Path(folder), PICTURES / "terminal.svg")
        asyncio.run(photograph_report(run / "report.html", _one_that_failed(run)))
        compare_and_analyze(program, run)
    for picture in sorted(PICTURES.iterdir()):
        sys.stdout.write(f"pictures: {picture.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
