from __future__ import annotations

import time
from pathlib import Path

import pytest

import tau2_fleet.record
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.overview import overviews
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


@pytest.mark.alone
def test_the_overview_of_a_long_run_costs_little_beside_the_reading(tmp_path: Path):
    """A thousand records of usual size (13 kB) take well under the 0.1 s of CPU that ten thousand a second allow."""
    text = "word " * 2000
    with (tmp_path / "simulations.jsonl").open("wb") as file:
        for trial in range(1000):
            record = make_record(SimulationKey("retail", "1", trial))
            record.messages += [{"role": "user", "content": text[:500], "turn_idx": n} for n in range(20)]
            file.write(record.as_line())
    spent = []
    for _ in range(3):
        started = time.process_time()
        assert len(overviews(tmp_path)) == 1000
        spent.append(time.process_time() - started)
    assert min(spent) < 0.2
