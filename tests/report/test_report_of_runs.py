"""A run leaves its page and its table, a sweep one page for all jobs; nothing of them reaches W&B unasked."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.analysis.causes import Cause
from tau2_fleet.report.charts import causes
from tau2_fleet.report.command import main
from tau2_fleet.report.page import make_report
from tau2_fleet.tracking.wandb_tables import run_files
from tests.run.runs import run

_SIGN = 7.5
"""Units of the chart: about what a sign of its text takes in a wide sans-serif face, on average."""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reported") / "run"
    done = run(directory, "experiment=smoke", "wandb=disabled")
    assert done.returncode == 0, done.stderr
    assert f"report: {directory / 'report.html'}" in done.stdout.replace("\n", "")
    return directory


def test_a_run_leaves_its_page_and_a_row_per_simulation(run_dir: Path) -> None:
    page = (run_dir / "report.html").read_text()
    assert "pass^1 is 0.889" in page
    assert len((run_dir / "simulations.csv").read_text().splitlines()) == 10


def test_neither_reaches_wandb_unless_transcripts_do(run_dir: Path) -> None:
    said = {"report.html", "simulations.csv", "simulations.jsonl"}
    assert said.isdisjoint(path.name for path in run_files(run_dir, transcripts=False))
    assert said <= {path.name for path in run_files(run_dir, transcripts=True)}


def test_report_false_leaves_none(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "experiment=smoke", "num_tasks=1", "report=false", "wandb=disabled")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_sweep_leaves_one_page_for_all_its_jobs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = run(
        None, "--multirun", "experiment=smoke", "num_tasks=2", "seed=1,2", f"hydra.sweep.dir={sweep}", "wandb=disabled"
    )
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(sweep) for path in sweep.rglob("report.html")] == [Path("report.html")]
    page = (sweep / "report.html").read_text()
    assert page.count("pass^1 is ") == 2
    assert "<td>[airline, retail, telecom]</td><td>[mock]</td>" in page
    anchors = re.findall(r' id="([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    assert {"run-1", "run-2", "departures", "departures-2"} <= set(anchors) & set(re.findall(r'href="#([^"?]+)"', page))
    assert main([str(sweep), "-o", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text().count("pass^1 is ") == 2


@pytest.mark.parametrize(("share", "simulations"), [(1.0, 1), (1.0, 99999), (0.5, 12)])
def test_the_figures_beside_a_bar_are_not_cut_off(share: float, simulations: int) -> None:
    drawn = causes([CauseShare(Cause.ACTION, simulations, 1.0, share, "retail/1/0", ())])
    width, start = re.findall(r'viewBox="0 0 (\d+) ', drawn)[0], re.findall(r'class="value" x="([\d.]+)"', drawn)[0]
    text = re.findall(r'class="value"[^>]*>([^<]+)', drawn)[0]
    assert float(start) + _SIGN * len(text) <= float(width)


def test_conversations_fill_one_chunk_after_the_other(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tau2_fleet.report.page._CHUNK_BYTES", 4_000)
    text = make_report([run_dir], tmp_path / "page.html").read_text()
    found = re.findall(r'<script[^>]*class="chunk"[^>]*>([^<]+)</script>', text)
    conversations = [json.loads(gzip.decompress(base64.b64decode(chunk))) for chunk in found]
    assert 1 < len(conversations) < 9
    assert len({one["key"] for chunk in conversations for one in chunk}) == 9
