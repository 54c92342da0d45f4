"""The judge's verdicts where it is not asked: in a file of its answers, read as the benchmark's own evaluator does.

`rescore --verdicts FILE` takes such a file, and a run leaves one (`docs/formats.md`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.reward import NLCheck
from tau2_fleet.regular import read_given

VERDICTS_FILE = "verdicts.jsonl"
"""Its name in a run directory."""


def read_verdicts(path: Path) -> dict[str, str | None]:
    """The judge's answers, as it gave them, by the id of the simulation.

    Raises:
        UserError: the file cannot be read, or a line is of another form.
    """
    answers: dict[str, str | None] = {}
    number = 0
    try:
        for line in read_given(path).splitlines():
            number += 1
            if not line.strip():
                continue
            item = json.loads(line)
            judged = item["judge"]
            answer = judged.get("read_as", judged["answer"])
            if not isinstance(answer, str | None):
                raise TypeError("the answer is no text")
            answers[str(item["id"])] = answer
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f'{path}: line {number} is not of the form {{"id": ..., "judge": {{"answer": "..."}}}}: {error}'
        ) from error
    return answers


def verdicts_line(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A record's line for such a file: what the judge said; None where it gave no verdicts.

    Where the benchmark's own rule does not find the record's verdicts in it, in fenced JSON say, `read_as` has them in
    the form that the judge is asked for; so have records without the judge's words.
    """
    checks = (record.get("reward_info") or {}).get("nl_assertions")
    if not checks:
        return None
    about = {key: record.get(key) for key in ("id", "domain", "task_id", "trial")}
    said = record.get("judge_answer")
    if said is not None and _finds(said, checks):
        return {**about, "judge": {"answer": said}}
    results = [
        {"expectedOutcome": one["nl_assertion"], "reasoning": one["justification"], "metExpectation": one["met"]}
        for one in checks
    ]
    asked_for = json.dumps({"results": results}, ensure_ascii=False)
    return {**about, "judge": {"answer": asked_for} if said is None else {"answer": said, "read_as": asked_for}}


def _finds(answer: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    try:
        found = verdicts_in(answer)
    except ValueError:
        return False
    return [(one.assertion, one.met, one.justification) for one in found] == [
        (one["nl_assertion"], one["met"], one["justification"]) for one in checks
    ]


def verdicts_in(answer: str | None) -> list[NLCheck]:
    """The verdicts in a judge's answer by the benchmark's own rule: JSON as it stands; what is missing is not missed.

    Raises:
        ValueError: the benchmark's evaluator would fail on it.
    """
    from pydantic import TypeAdapter

    try:
        items = json.loads(answer).get("results", [])  # type: ignore[arg-type]
        return [_verdict(item, TypeAdapter(bool)) for item in items]
    except (AttributeError, KeyError, TypeError, RecursionError, ValueError) as error:
        raise ValueError(f"the judge's answer cannot be read: {type(error).__name__}: {_line(error)}") from error


def _verdict(item: Mapping[str, Any], boolean: Any) -> NLCheck:
    assertion, met, reasoning = item["expectedOutcome"], item["metExpectation"], item["reasoning"]
    if not isinstance(assertion, str) or not isinstance(reasoning, str):
        raise ValueError("expectedOutcome or reasoning is no text")
    return NLCheck(assertion, boolean.validate_python(met), reasoning)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
