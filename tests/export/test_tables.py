"""csv and parquet, read back by pandas and pyarrow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest

from tau2_fleet.export.command import main
from tau2_fleet.export.tables import TABLES
from tests.export.conftest import write_records
from tests.run.runs import records

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def test_csv_has_the_rows_of_the_runs_own_table(run_dir: Path, tmp_path: Path, known_secret: str) -> None:
    assert main([str(run_dir), "--format", "csv", "-o", str(tmp_path / "a.csv")]) == 0
    ours, theirs = (pandas.read_csv(path) for path in (tmp_path / "a.csv", run_dir / "simulations.csv"))
    assert list(ours.columns) == list(theirs.columns)
    keys = ["id", "trial"]
    same = [frame[frame.trial < 2].set_index(keys).sort_index().drop(columns="seed") for frame in (ours, theirs)]
    pandas.testing.assert_frame_equal(*same, check_dtype=False)
    assert ours.reward.sum() == len(ours) * 2 / 3


@pytest.mark.parametrize("table", TABLES)
def test_parquet_keeps_every_row_and_its_schema(run_dir: Path, tmp_path: Path, table: str, known_secret: str) -> None:
    path = tmp_path / "a.parquet"
    assert main([str(run_dir), "--format", "parquet", "--table", table, "-o", str(path)]) == 0
    kept = records(run_dir)
    wanted = {"simulations": len(kept)} | {
        name: sum(len(line[name]) for line in kept) for name in ("calls", "messages")
    }
    read = pyarrow.parquet.read_table(path)
    assert read.num_rows == wanted[table]
    bare = [{name: kept[0][name] for name in ("domain", "task_id", "trial", "termination_reason", "reward")}]
    odd = {"messages": [{"role": 3, "raw_data": 5, "error": "x", "usage": []}], "calls": [{"usage": 1, "step": 1e9}]}
    write_records(tmp_path / "bare", [*bare, {**bare[0], **odd, "trial": 1}])
    again = tmp_path / "b.parquet"
    assert main([str(tmp_path / "bare"), "--format", "parquet", "--table", table, "-o", str(again)]) == 0
    assert pyarrow.parquet.read_schema(again).equals(read.schema)
    if table == "messages":
        frame = read.to_pandas()
        texts = [message["content"] for line in kept for message in line["messages"]]
        assert list(frame.content.fillna("-")) == [
            "-" if text is None else text.replace(known_secret, "[redacted]") for text in texts
        ]
        calls = [
            call["name"] for line in kept for message in line["messages"] for call in message.get("tool_calls") or []
        ]
        assert [call["name"] for cell in frame.tool_calls.dropna() for call in json.loads(cell)] == calls
        assert known_secret.encode() not in path.read_bytes()


def test_several_runs_are_told_apart_and_filters_hold(run_dir: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "other", [line for line in records(run_dir) if line["domain"] == "airline"])
    path = tmp_path / "a.csv"
    wanted = ["--domain", "airline", "--min-reward", "1", "-o", str(path)]
    assert main([str(run_dir), str(tmp_path / "other"), "--format", "csv", *wanted]) == 0
    frame = pandas.read_csv(path)
    assert dict(frame.run.value_counts()) == {"run": 8, "other": 8}
    assert set(frame.domain) == {"airline"}
    assert set(frame.reward) == {1.0}


def test_the_lines_for_pandas_in_the_documentation_run(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").symlink_to(run_dir)
    text = FORMATS.read_text()
    for line in re.findall(r"^tau2-fleet export (DIR --format parquet.*)$", text, re.M):
        assert main([*line.split(), "--force"]) == 0
    [block] = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(block, str(FORMATS), "exec"), {})
    printed = capsys.readouterr().out
    assert "airline" in printed
    assert re.search(r"airline +0\.66", printed)
