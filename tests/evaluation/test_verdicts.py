"""A judge's answer is read as the benchmark's own evaluator reads it, the odd ones too."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.verdicts import read_verdicts, verdicts_in

ITEM = {"expectedOutcome": "a", "reasoning": "r", "metExpectation": True}
VALUES: list[Any] = [True, False, None, 0, 1, 2, 1.0, 0.5, "true", "yes", "on", "t", " true", "maybe", "", [], {}]
_RESULTS: list[Any] = [{}, {"a": 1}, "", "ab", 0, False, None, [1], [None], ["x"], [[]]]
ANSWERS: list[str | None] = [
    *(json.dumps({"results": [{**ITEM, name: value}]}) for name in ITEM for value in VALUES),
    *(json.dumps({"results": [{key: ITEM[key] for key in ITEM if key != name}]}) for name in ITEM),
    *(json.dumps({"results": results}) for results in _RESULTS),
    *("null", "1", '"x"', "[]", "{}", ' {"results":[]} \n', '\ufeff{"results":[]}', '{"Results":[]}', "", None),
    *('{"results":[]} more', '```{"results":[]}```', "{'results':[]}", '{"results":[],"results":null}'),
    '{"results":[{"expectedOutcome":"a","reasoning":"r","metExpectation":NaN}]}',
]


def test_every_answer_is_read_or_refused_as_by_the_packages_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2.data_model.message import AssistantMessage
    from tau2.evaluator import evaluator_nl_assertions as package

    said = [AssistantMessage(role="assistant", content="Hello.")]
    for answer in ANSWERS:
        reply = SimpleNamespace(content=answer)
        monkeypatch.setattr(package, "generate", lambda *_, reply=reply, **__: reply)
        try:
            checks = package.NLAssertionsEvaluator.evaluate_nl_assertions(said, ["a"])
            theirs = [(one.nl_assertion, one.met, one.justification) for one in checks]
        except Exception:
            with pytest.raises(ValueError, match="cannot be read"):
                verdicts_in(answer)
            continue
        assert [(one.assertion, one.met, one.justification) for one in verdicts_in(answer)] == theirs, answer


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": "a", "judge": {"answer": 3}}', "line 2 is not of the form"),
        (b"\xff\xfe", "line 2 is not of the form"),
        (b'{"id": "a", "judge": ' + b"[" * 200_000, "line 2 is not of the form"),
    ],
)
def test_a_file_of_verdicts_that_is_none_is_named_by_its_line(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b'{"id": "b", "judge": {"answer": "[]"}}\n' + line)
    with pytest.raises(UserError, match=why):
        read_verdicts(path)


def test_verdicts_come_out_of_a_pipe_too(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=lambda: pipe.write_bytes(b'{"id": "b", "judge": {"answer": "[]"}}\n'))
    writer.start()
    assert read_verdicts(pipe) == {"b": "[]"}
    writer.join()
