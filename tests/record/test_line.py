from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.record import line as line_module
from tau2_fleet.record.line import DamagedRecord, Record, SimulationKey, read_line
from tau2_fleet.record.overview import overviews
from tau2_fleet.record.reading import Damage, stored_lines
from tau2_fleet.record.store import Store
from tests.batch.records import make_record

KEY = SimulationKey("retail", "1", 0)


def stored(**changed: Any) -> bytes:
    """A record's line with other values; None takes a field away."""
    value = json.loads(make_record(KEY).as_line()) | changed
    return json.dumps({name: part for name, part in value.items() if part is not None}).encode() + b"\n"


def test_every_field_of_a_record_is_checked_when_it_is_read():
    assert {part.name for part in dataclasses.fields(Record)} - {"others"} == set(line_module._FORMS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trial": -1}, "trial is -1"),
        ({"attempt": -1}, "attempt is -1"),
        ({"reward": 7}, "reward is 7"),
        ({"reward": -1e308}, r"reward is -1e\+308"),
        ({"reward": float("nan")}, "reward is nan"),
        ({"reward": True}, "reward is True"),
        ({"sub_rewards": {"DB": 2}}, "sub_rewards is an object of another form"),
        ({"duration_s": -0.5}, "duration_s is -0.5"),
        ({"cost_by_role": {"user": -1e308}}, "cost_by_role"),
        ({"usage_by_role": {"user": {"input_tokens": 10**400}}}, "usage_by_role"),
        ({"trial": 10**400}, "trial is a number too large"),
        ({"messages": [{"role": 5}]}, "messages is a list of another form"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": "f()"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": None}]}]}, "messages"),
        ({"calls": [{"role": "user", "duration_ms": "x"}]}, "calls is a list of another form"),
        ({"reward_info": {"reward_basis": 5}}, "reward_info is an object of another form"),
        ({"reward_info": {"action_checks": [{"action": None, "action_match": True}]}}, "reward_info"),
        ({"reward_info": {"communicate_checks": [{"info": "x"}]}}, "reward_info"),
        ({"termination_reason": "bored"}, "termination_reason is 'bored'"),
        ({"usage_by_role": {"user": 5}}, "usage_by_role is an object of another form"),
        ({"usage_by_role": {"user": {"input_tokens": 0.5}}}, "usage_by_role"),
        ({"replies": {"agent": {"cut": -1}}}, "replies"),
        ({"cost_by_role": {"user": "free"}}, "cost_by_role"),
        ({"cost_by_role": []}, "cost_by_role is a list of another form"),
        ({"prompts": {"agent": 1}}, "prompts"),
        ({"tools": {"agent": 1}}, "tools"),
        ({"notes": []}, "notes"),
        ({"db_diff": {}}, "db_diff"),
        ({"db_diff": [1]}, "db_diff"),
        ({"error": 5}, "error is 5"),
        ({"judge_answer": 5}, "judge_answer is 5"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"started": 5}, "started is 5"),
        ({"reward": None}, "no reward"),
        ({"task_id": None}, "no task_id"),
    ],
)
def test_what_cannot_be_true_of_a_simulation_is_damage_and_named(tmp_path: Path, changed: dict[str, Any], said: str):
    with pytest.raises(DamagedRecord, match=said):
        read_line(stored(**changed))
    (tmp_path / "simulations.jsonl").write_bytes(stored(task_id="2") + stored(**changed))
    damage = Damage()
    assert [one.task_id for one in overviews(tmp_path, damage)] == ["2"]
    assert str(damage).startswith("1 damaged line (line 2: ")
    with Store(tmp_path) as store:
        assert [key.task_id for key in store.finished] == ["2"]
        assert str(store.damage) == str(damage)


def test_fields_of_another_version_are_carried(tmp_path: Path):
    (tmp_path / "simulations.jsonl").write_bytes(stored(v=2, replies={"agent": {"cut": 1}}, termination_reason="bored"))
    with Store(tmp_path) as store:
        assert store.finished == {KEY}
        assert store.read(store.entries[KEY])["replies"] == {"agent": {"cut": 1}}
    [line] = stored_lines(tmp_path / "simulations.jsonl")
    assert line.record is not None
    assert json.loads(line.record.as_line())["replies"] == {"agent": {"cut": 1}}


@pytest.mark.parametrize(
    "name", ["id", "seed", "attempt", "started", "messages", "calls", "prompts", "notes", "usage_by_role", "error", "v"]
)
def test_a_field_that_an_older_version_did_not_write_gets_its_default(name: str):
    record = read_line(stored(**{name: None}))
    assert record.key == KEY
    assert not getattr(record, name) or name == "v"


def test_a_whole_last_line_without_its_line_break_is_kept(tmp_path: Path):
    path = tmp_path / "simulations.jsonl"
    path.write_bytes(stored() + stored(task_id="2").rstrip())
    (tmp_path / "prompts.jsonl").write_bytes(b'{"digest": "abc", "text": "Hello"}')
    assert len(overviews(tmp_path)) == 2
    with Store(tmp_path) as store:
        assert len(store.finished) == 2
        store.append(make_record(SimulationKey("retail", "3", 0)))
        store.keep_prompt("abc", "Hello")
        store.keep_prompt("def", "Bye")
    assert [json.loads(line)["task_id"] for line in path.read_bytes().splitlines()] == ["1", "2", "3"]
    assert [json.loads(line)["digest"] for line in (tmp_path / "prompts.jsonl").open()] == ["abc", "def"]


@pytest.mark.parametrize("kept", [0, 20])
def test_a_record_that_others_change_during_a_run_ends_it_with_a_clear_error(tmp_path: Path, kept: int):
    with Store(tmp_path) as store:
        store.append(make_record(KEY))
        with (tmp_path / "simulations.jsonl").open("r+b") as file:
            file.truncate(kept)
        with pytest.raises(UserError, match=r"simulations.jsonl was changed by another program"):
            store.append(make_record(KEY))


def test_the_worst_status_of_several_parts_is_that_of_the_whole():
    best_to_worst = [0, 4, 3, 2, 1, 130]
    for index in range(1, len(best_to_worst) + 1):
        assert ExitStatus.worst(best_to_worst[:index]) == best_to_worst[index - 1]
    assert ExitStatus.worst([]) == 0
    assert ExitStatus.worst([0, 77]) == 1
