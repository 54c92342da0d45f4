"""`simulations.csv`: one row per simulation, readable by others, harmless in a spreadsheet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tau2_fleet.analysis.rows import row_of, rows_file
from tau2_fleet.benchmark.domains import load_domain
from tests.analysis.damaged import damaged_records


def test_a_row_per_simulation_with_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    records = [record for kind in damaged_records(load_domain("airline"), 3).values() for record in kind]
    records.append({**records[0], "reward": 1.0, "error": None, "sub_rewards": {"DB": 1.0}})
    with rows_file(tmp_path / "simulations.csv") as write:
        for record in records:
            write(row_of(record))
    frame = pd.read_csv(tmp_path / "simulations.csv", dtype={"id": str, "task_id": str})
    assert list(frame["id"]) == [f"airline/{record['task_id']}" for record in records]
    assert list(frame["reward"]) == [record["reward"] for record in records]
    assert list(frame["messages"]) == [len(record["messages"]) for record in records]
    last = frame.iloc[-1]
    assert pd.isna(last["cause"])
    assert pd.isna(last["communicate"])
    assert last["db"] == 1.0
    assert frame["cause"].notna().sum() == len(records) - 1


def test_no_cell_is_a_formula_or_moves_a_cursor(tmp_path: Path) -> None:
    record = next(iter(damaged_records(load_domain("airline"), 1)["server error"]))
    with rows_file(tmp_path / "simulations.csv") as write:
        write(row_of({**record, "task_id": "=cmd|' /C calc'!A0", "error": "\x1b[2J\n@SUM(1)"}))
    frame = pd.read_csv(tmp_path / "simulations.csv")
    assert frame["task_id"][0].startswith("'=cmd")
    assert frame["error"][0] == " [2J @SUM(1)"
    assert "\x1b" not in (tmp_path / "simulations.csv").read_text()
