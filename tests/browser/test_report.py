"""The report in headless Chromium, opened from disk: what a person clicks works, nothing leaves, nothing breaks out."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.record.line import decode_line, encode_line
from tau2_fleet.report.page import make_report
from tests.browser.chromium import PROGRAM, Page, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: make test-browser installs it")

Look = Callable[[Page], Awaitable[None]]
FIRST = "#simulations tbody tr:first-child"


def in_chromium(path: Path, look: Look, profile: Path, fragment: str = "") -> None:
    """Open a report and look at it; at the end nothing but files of its own was asked for and nobody complained."""

    async def session() -> None:
        async with chromium(profile) as page:
            await page.size(1400, 1000)
            await page.open(path, fragment)
            await look(page)
            own = path.resolve().parent.as_uri()
            assert [url for url in page.requests if not url.startswith((own, "about:", "data:"))] == []
            assert page.complaints == []
            assert page.dialogs == []
            assert await page.run("window.broken") is None

    asyncio.run(session())


@pytest.fixture(scope="session")
def report(run_dir: Path) -> Path:
    return make_report([run_dir], run_dir / "report.html")


@pytest.fixture(scope="session", params=["one file", "folder"])
def any_form(request: pytest.FixtureRequest, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same report as one file, and as the folder that a large run gets."""
    limit = 2000 if request.param == "one file" else 3
    return make_report([run_dir], tmp_path_factory.mktemp("form") / "report.html", folder_beyond=limit)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [decode_line(line) for line in (run_dir / "simulations.jsonl").open("rb")]


async def cells(page: Page, column: str) -> list[str]:
    index = await page.run(
        f"[...document.querySelectorAll('#simulations th')].findIndex((one) => one.dataset.sort === '{column}') + 1"
    )
    found: list[str] = await page.run(
        f"[...document.querySelectorAll('#simulations tbody td:nth-child({index})')].map((one) => one.textContent)"
    )
    return found


async def fill(page: Page, field: str, value: str) -> None:
    await page.run(
        f"(() => {{ const field = document.getElementById('{field}'); field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('input')); })()"
    )


def test_sort_filter_and_search_show_what_they_say(any_form: Path, run_dir: Path, tmp_path: Path) -> None:
    everything = rows(run_dir)

    async def look(page: Page) -> None:
        assert len(await cells(page, "id")) == len(everything)
        await page.click("#simulations th[data-sort=trial]")
        ascending = [int(trial) for trial in await cells(page, "trial")]
        assert ascending == sorted(ascending)
        await page.click("#simulations th[data-sort=trial]")
        assert [int(trial) for trial in await cells(page, "trial")] == ascending[::-1]

        await fill(page, "by-ending", "max_steps")
        limited = [row for row in everything if row["termination_reason"] == "max_steps"]
        assert len(await cells(page, "id")) == len(limited) > 0
        await fill(page, "by-ending", "")

        await fill(page, "search", "gnp.EXE")
        await page.until("document.documentElement.dataset.indexed === 'yes'")
        await page.until("document.getElementById('count').textContent.startsWith('1 of ')")
        assert await cells(page, "trial") == ["0"]

    in_chromium(any_form, look, tmp_path)


def test_a_simulation_opens_by_link_and_by_keys_and_a_failed_check_leads_to_its_message(
    any_form: Path, run_dir: Path, tmp_path: Path
) -> None:
    wrong = next(row for row in rows(run_dir) if row["termination_reason"] == "user_stop" and row["db_diff"])
    key = f"{wrong['domain']}/{wrong['task_id']}/{wrong['trial']}"

    async def look(page: Page) -> None:
        await page.until("document.querySelectorAll('.turn').length > 0")
        assert await page.run("document.querySelector('.pane h2').textContent") == key
        assert await page.run("document.querySelectorAll('.turn').length") == len(wrong["messages"])
        difference = wrong["db_diff"][0]
        assert str(difference["key"]) in await page.run("document.querySelector('.side').textContent")
        await page.press("j")
        await page.until(f"document.querySelector('.pane h2').textContent !== {json.dumps(key)}")
        await page.press("k")
        await page.until(f"document.querySelector('.pane h2').textContent === {json.dumps(key)}")
        await page.press("Escape")
        await page.until("document.getElementById('conversation').hidden")

        await page.run("location.hash = '#?cause=transfer'")
        await page.until("document.getElementById('by-cause').value === 'transfer'")
        await page.click(f"{FIRST} td.id a")
        await page.until("document.querySelectorAll('.side li.bad a').length > 0")
        await page.click(".side li.bad a")
        await page.until("document.querySelector('.turn.target') !== null")
        assert "transfer_to_human_agents" in await page.run("document.querySelector('.turn.target').textContent")

    in_chromium(any_form, look, tmp_path, "#" + key)


def test_trials_stand_side_by_side(report: Path, tmp_path: Path) -> None:
    async def look(page: Page) -> None:
        await page.click(f"{FIRST} td.id a")
        await page.until("document.querySelector('#others a') !== null")
        await page.click("#others a")
        await page.until("document.querySelectorAll('.pane').length === 2")

    in_chromium(report, look, tmp_path)


def test_what_models_say_is_shown_and_never_runs(any_form: Path, run_dir: Path, tmp_path: Path) -> None:
    evil = rows(run_dir)[0]

    async def look(page: Page) -> None:
        await page.until("document.querySelectorAll('.turn').length > 0")
        shown = await page.run("document.querySelector('[data-turn=\"1\"] .text').textContent")
        assert "<script>window.broken = 1</script>" in shown
        assert "{{ 7 * 7 }}" in shown
        assert not set(shown) & set("\u202e\u0000\u001b")
        assert await page.run("document.querySelectorAll('.pane img, .pane script, .pane iframe').length") == 0
        long = await page.run("document.querySelector('[data-turn=\"2\"] .text').textContent.length")
        assert 100_000 < long < 300_000

    in_chromium(any_form, look, tmp_path, f"#{evil['domain']}/{evil['task_id']}/{evil['trial']}")


def test_keys_of_this_process_are_not_in_the_page(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tau2_fleet.telemetry.secrets import protect_environment

    key = "sk-planted-in-a-conversation-0123456789"
    monkeypatch.setenv("PLANTED_API_KEY", key)
    protect_environment()
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    record = rows(copy)[1]
    record["messages"][1]["content"] = f"my key is {key}"
    record["error"] = f"HTTP 401 for {key}"
    (copy / "simulations.jsonl").write_bytes(encode_line({**record, "reward": 0.0}))
    page = make_report([copy], copy / "report.html")

    async def look(tab: Page) -> None:
        await tab.click(f"{FIRST} td.id a")
        await tab.until("document.querySelectorAll('.turn').length > 0")
        whole = await tab.run("document.documentElement.outerHTML")
        assert "my key is" in whole
        assert key not in whole

    in_chromium(page, look, tmp_path / "profile")


def test_headline_causes_and_table_are_there_without_javascript(report: Path, run_dir: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "pass^1 is " in text
    assert "Reward was lost by " in text
    assert text.count('<td class="id">') == len(rows(run_dir))


def test_light_and_dark_follow_the_system_and_the_button(report: Path, tmp_path: Path) -> None:
    async def look(page: Page) -> None:
        paper = "getComputedStyle(document.body).backgroundColor"
        light = await page.run(paper)
        await page.size(1400, 1000, dark=True)
        dark = await page.run(paper)
        assert light != dark
        await page.click("#theme")
        assert await page.run(paper) == light

    in_chromium(report, look, tmp_path)


def test_nothing_is_cut_at_400_pixels(report: Path, tmp_path: Path) -> None:
    async def look(page: Page) -> None:
        await page.size(400, 900)
        assert await page.run("document.documentElement.scrollWidth") <= 400
        await page.click(f"{FIRST} td.id a")
        await page.until("document.querySelectorAll('.turn').length > 0")
        assert await page.run("document.documentElement.scrollWidth") <= 400

    in_chromium(report, look, tmp_path)


def test_reviews_mark_the_turn_say_whose_fault_it_was_and_filter(tmp_path: Path) -> None:
    from tests.compare.runs import call
    from tests.review.runs import record, write

    run = write(tmp_path / "run", [record("0"), record("0", "early_stop", 1), record("5", "skipped_step")])
    plain = make_report([run], run / "plain.html")
    assert call("review", run)[0] == 0
    page = make_report([run], run / "report.html")

    async def look(page: Page) -> None:
        assert "pass^1 is 0.500" in await page.run("document.body.textContent")
        await page.click("a[href='#?fault=customer']")
        await page.until("document.querySelectorAll('#simulations tbody tr').length === 1")
        assert await cells(page, "fault") == ["customer"]
        await page.click(f"{FIRST} a")
        await page.until("document.querySelector('.turn .error') !== null")
        last = "document.querySelector('.turn:last-child .error').textContent"
        assert await page.run(last) == "customer: ended early"
        assert "Whose errors" in await page.run("document.querySelector('.side').textContent")

    async def look_without(page: Page) -> None:
        assert await cells(page, "cause")
        assert await page.run("document.getElementById('by-fault').hidden")

    in_chromium(page, look, tmp_path / "profile")
    in_chromium(plain, look_without, tmp_path / "other")
