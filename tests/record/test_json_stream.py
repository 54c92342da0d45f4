"""A large results file of another program is read piece by piece, and is the same as if it were read whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.record import json_stream, results_file
from tests.analysis.test_rescore import results

VALUES: list[dict[str, Any]] = [
    {},
    {"simulations": []},
    {"a": 12345.5, "simulations": [{"x": "é" * 50}, 3, "y", None, [1, {"z": []}]], "b": {"c": [1, 2]}, "d": 99},
    {"simulations": "none", "e": '\\" }'},
]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
@pytest.mark.parametrize("indent", [None, 3])
def test_members_are_those_of_the_object(
    chunk: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    for value in VALUES:
        (tmp_path / "f.json").write_text(json.dumps(value, indent=indent))
        listed = isinstance(value.get("simulations"), list)
        wanted = [
            pair
            for name, part in value.items()
            for pair in ([(name, one) for one in part] if name == "simulations" and listed else [(name, part)])
        ]
        assert list(json_stream.object_members(tmp_path / "f.json", "simulations")) == wanted


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1', '{"a" 1}', '{"a": 1} x', '{"simulations": [1, ', '{"a": tru}'])
def test_what_is_no_object_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        list(json_stream.object_members(tmp_path / "f.json", "simulations"))


def test_a_large_file_reads_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{"id": str(number), "task_id": "t"} for number in range(5)]
    file = tmp_path / "r.json"
    file.write_text(json.dumps(results("mock", [], runs), indent=2))
    small = results_file.read_results(file)
    monkeypatch.setattr(results_file, "LARGE", 10)
    large = results_file.read_results(file)
    assert list(large.simulations()) == list(small.simulations()) == runs
    assert {**large.head, "simulations": 0} == {**small.head, "simulations": 0}
    file.write_text(file.read_text()[:-30])
    with pytest.raises(UserError, match="not JSON"):
        results_file.read_results(file)
