from __future__ import annotations

from pathlib import Path

import pytest

import tau2_fleet.record
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tests.batch.records import make_record


def test_a_run_becomes_a_data_frame_with_a_row_a_simulation(tmp_path: Path):
    lines = [
        make_record(SimulationKey("retail", "1", 0), reward=0.0),
        make_record(SimulationKey("retail", "2", 0), reward=0.0, reason="max_steps", sub_rewards={"ACTION": 0.0}),
        make_record(SimulationKey("retail", "1", 0)),
    ]
    (tmp_path / "simulations.jsonl").write_bytes(b"".join(record.as_line() for record in lines))
    frame = tau2_fleet.record.read(tmp_path)
    assert list(frame.task_id) == ["2", "1"]
    assert list(frame.success) == [False, True]
    assert list(frame.cost_usd) == [0.25, 0.25]
    assert list(frame.input_tokens) == [10, 10]
    assert list(frame.reward_DB.fillna(-1)) == [-1, 1]
    with pytest.raises(UserError, match="is no run directory"):
        tau2_fleet.record.read(tmp_path / "elsewhere")
