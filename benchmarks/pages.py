"""The report of 1,112 conversations of 30 to 60 messages: making it, its size, opening it and searching in Chromium."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.record.line import encode_line
from tau2_fleet.report.page import make_report
from tests.analysis.damaged import damaged_records
from tests.browser.chromium import PROGRAM, chromium

SIMULATIONS = 1112
_TALK = (
    "the customer order refund account please check policy booking reservation flight gift card payment item exchange "
    "return delivered pending status confirm cabin baggage address address1 identity number would like could you"
)
_WORDS = _TALK.split()
_SEARCHES = ("certificate", "gift card payment", "nothing has these words")

Json = dict[str, Any]


def rows(*, quick: bool) -> list[Row]:
    """CPU of making the page, its size, and in Chromium the time to open it and the slowest of three searches."""
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        count = SIMULATIONS // 8 if quick else SIMULATIONS
        write_long_run(directory, count)
        begun = time.process_time()
        page = make_report([directory], directory / "report.html")
        cpu_s = time.process_time() - begun
        size = page.stat().st_size / 1e6
        detail = {"simulations": count}
        table = [
            Row("pages/making it/cpu", cpu_s, None, "s", limit=10.0, detail=detail),
            Row("pages/size", size, None, "MB", limit=15.0, detail=detail),
        ]
        if PROGRAM is not None:
            opened_s, searched_ms = asyncio.run(_in_chromium(page, Path(folder) / "profile"))
            table += [
                Row("pages/opening", opened_s, None, "s", limit=1.0, detail=detail),
                Row("pages/search", searched_ms, None, "ms", limit=200.0, detail=detail),
            ]
    return table


async def _in_chromium(path: Path, profile: Path) -> tuple[float, float]:
    """Seconds until the page can be used, the best of three; milliseconds of the slowest search once all is read."""
    async with chromium(profile) as page:
        await page.size(1400, 1000)
        opened = []
        for _ in range(3):
            await page.open(path)
            opened.append(await page.run("performance.getEntriesByName('ready')[0].startTime") / 1000)
        await page.until("document.documentElement.dataset.indexed === 'yes'")
        searched = [
            await page.run(
                f"(async () => {{ const field = document.getElementById('search'); field.value = {word!r};"
                " const count = document.getElementById('count'); count.textContent = '';"
                " const begun = performance.now(); field.dispatchEvent(new Event('input'));"
                " while (!count.textContent) await new Promise((resolve) => setTimeout(resolve, 1));"
                " return performance.now() - begun; })()"
            )
            for word in _SEARCHES
        ]
    return min(opened), max(searched)


def write_long_run(directory: Path, count: int) -> None:
    """A run directory with simulations of realistic length: damaged gold runs with talk and thinking between."""
    generator = random.Random(1)
    base = [record for kind in damaged_records(load_domain("airline"), 10).values() for record in kind]
    directory.mkdir(parents=True)
    with (directory / "simulations.jsonl").open("wb") as file:
        for trial in range(count):
            record = copy.deepcopy(generator.choice(base))
            record["trial"] = trial
            while len(record["messages"]) < generator.randint(30, 60):
                record["messages"][1:1] = _talk(generator, record["ended"])
            file.write(encode_line(record))


def _talk(generator: random.Random, timestamp: str) -> list[Json]:
    def text(words: int) -> str:
        return " ".join(generator.choice(_WORDS) for _ in range(words))

    agent = {
        "role": "assistant",
        "content": text(80),
        "timestamp": timestamp,
        "usage": {"prompt_tokens": 4000, "completion_tokens": 200},
        "raw_data": {"author": "agent", "thinking": text(150)},
    }
    user = {
        "role": "user",
        "content": text(30),
        "timestamp": timestamp,
        "usage": {"prompt_tokens": 900, "completion_tokens": 40},
    }
    return [agent, user]
