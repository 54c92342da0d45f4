"""However deep a model nests its arguments: the call is answered, the simulation goes on, its record is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tau2_fleet.llm.message_views import MOST_NESTED, NOT_A_JSON_OBJECT, parse_call
from tau2_fleet.llm.types import ToolCallText
from tau2_fleet.record.line import SimulationKey, decode_line, encode_line, read_line
from tau2_fleet.record.store import Store
from tests.batch.records import make_record
from tests.simulation.scenes import CREATE, Lines, reply, simulate

DEPTHS = (100, 240, 300, 450, 500, 600, 900, 1000, 5000)
BRACKETS = (("[", "]"), ('{"a": ', "}"))


def nested(depth: int, opening: str, closing: str, core: str = "1") -> str:
    """A JSON object of so many levels, itself included."""
    return '{"user_id": ' + opening * (depth - 1) + core + closing * (depth - 1) + "}"


@pytest.mark.parametrize("brackets", BRACKETS)
@pytest.mark.parametrize("core", ["1", str(2**70)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_call_is_answered_and_its_simulation_is_stored(
    tmp_path: Path, depth: int, core: str, brackets: tuple[str, str]
):
    agent = Lines(
        reply(None, ("create_task", nested(depth, *brackets, core))), reply(None, CREATE), reply("It is done.")
    )
    record = simulate(agent, Lines(reply("Please create it."), reply("Thanks ###STOP###")))
    assert (record.termination_reason, record.reward, record.error) == ("user_stop", 1.0, None)
    with Store(tmp_path) as store:
        store.append(record)
    with Store(tmp_path) as store:
        assert store.damage.count == 0
        kept = store.read(store.entries[record.key])
    assert kept["messages"] == record.messages


@pytest.mark.parametrize("brackets", BRACKETS)
def test_arguments_are_used_up_to_the_limit_and_malformed_beyond_it(brackets: tuple[str, str]):
    fitting, deeper = (nested(depth, *brackets) for depth in (MOST_NESTED, MOST_NESTED + 1))
    assert list(parse_call(ToolCallText("1", "f", fitting), "assistant").arguments) == ["user_id"]
    assert parse_call(ToolCallText("1", "f", deeper), "user").arguments == {NOT_A_JSON_OBJECT: deeper}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("odd", [1, 2**70, "\ud800", float("nan")])
def test_a_line_is_written_and_read_whatever_a_record_holds(depth: int, odd: object):
    value = odd
    for _ in range(depth):
        value = {"a": [value]}
    record = make_record(SimulationKey("mock", "1", 0))
    record.messages[0]["raw_data"] = value
    found = read_line(record.as_line())
    assert found is not None
    assert (found.key, found.messages[1]) == (record.key, record.messages[1])
    assert decode_line(encode_line({"deep": value})).keys() == {"deep"}
