"""What the report holds of a run: its rows, its conversations, and its page without them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tau2_fleet.report.page import make_report
from tests.golden import assert_agrees, eventful_run
from tests.report.test_page import unpacked

GOLDEN = Path(__file__).parent / "golden"
_PACKED = re.compile(r'<script[^>]*(?:id="rows"|class="chunk")[^>]*>([^<]+)</script>')
_OWN = re.compile(r"<(style|script)[^>]*>.*?</\1>|<meta[^>]*Security-Policy[^>]*>", re.DOTALL)


def test_what_the_report_holds(tmp_path: Path) -> None:
    runs = [eventful_run(tmp_path / f"run-{seed}", seed) for seed in (1, 2)]
    text = make_report(runs, tmp_path / "report.html").read_text()
    rows, conversations = (unpacked(packed.strip()) for packed in _PACKED.findall(text))
    assert_agrees(GOLDEN / "rows.json", json.dumps(rows[:12], indent=0, ensure_ascii=False))
    assert_agrees(GOLDEN / "conversations.json", json.dumps(conversations[:6], indent=0, ensure_ascii=False))
    assert_agrees(GOLDEN / "page.html", _OWN.sub("", text), folder=tmp_path)
