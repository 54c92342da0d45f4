"""Whole outputs against files that hold them: what a command says of the same run stays the same, to the last figure.

`GOLDEN=write` in the environment writes the files anew, for a change that was meant; look at what `git diff` says then.
"""

from __future__ import annotations

import copy
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet import __version__
from tests.telemetry.run_directory import write_run

Json = dict[str, Any]
_LONG = re.compile(r"\d+\.\d{7,}(?:e-?\d+)?")
"""Floats in full: the last digits are the machine's own."""


def assert_agrees(file: Path, text: str, **places: Path) -> None:
    """Whether a text is the file's, once paths of this machine are put out of it by their names."""
    for name, place in places.items():
        text = text.replace(str(place), f"<{name}>")
    text = text.replace(f"{date.today()}", "<today>").replace(__version__, "<version>")
    text = _LONG.sub(lambda found: f"{float(found[0]):.6g}", text)
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text.splitlines() == file.read_text(encoding="utf-8").splitlines(), f"see tests/golden.py of {file.name}"


@contextmanager
def in_utc() -> Iterator[None]:
    """Local times are the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def eventful_run(directory: Path, seed: int = 1) -> Path:
    """A run in which simulations end and fail in many ways."""
    write_run(directory, {"retail": 9, "airline": 3}, seed=seed, trials=2)
    path = directory / "simulations.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record, change in zip(records, _CHANGES, strict=False):
        _merge(record, copy.deepcopy(change))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


def _merge(record: Json, change: Json) -> None:
    for name, value in change.items():
        if name in ("first_call", "last_message"):
            part = record["calls"][0] if name == "first_call" else record["messages"][-1]
            part.update(value)
        elif name == "reward_info":
            record[name].update(value)
        else:
            record[name] = value


def _lost(reason: str, **more: Any) -> Json:
    return {"termination_reason": reason, "reward": 0.0, "sub_rewards": {}, "db_diff": None, **more}


_DIFFERENCE = {"side": "user", "table": "lines", "key": "L1", "field": None, "expected": "null", "actual": '{"a": 1}'}
_CHANGES: tuple[Json, ...] = (
    _lost("infrastructure_error", error="no answer in 12.5 s"),
    _lost("max_steps"),
    {"notes": {"unseen_calls": 2, "user_turns_as_agent": 1}, "usage_by_role": {}, "cost_by_role": {}},
    _lost("context_overflow", error="the history does not fit 1000 tokens"),
    {
        "reward": 0.0,
        "sub_rewards": {"DB": 0.0, "COMMUNICATE": 0.0, "NL_ASSERTION": 0.0},
        "db_diff": [_DIFFERENCE | {"key": f"L{number}"} for number in range(12)],
        "reward_info": {
            "reward": 0.0,
            "reward_basis": ["DB", "COMMUNICATE", "NL_ASSERTION"],
            "communicate_checks": [{"info": "42.5", "met": False, "justification": "not said"}],
            "nl_assertions": [{"nl_assertion": "The agent is kind.", "met": False, "justification": "It is rude."}],
        },
        "replies": {"agent": {"cut": 2, "empty": 1}},
        "first_call": {"conditions": ["cut"], "details": {"cut": "at 400 tokens"}, "error": None},
    },
    {"db_diff": [], "reward": 0.5, "sub_rewards": {"DB": 1.0, "COMMUNICATE": 0.5}},
    _lost("too_many_errors", error=None),
    _lost("user_error", error="nothing came"),
    _lost("agent_error", error="Planner: KeyError: 'plan'", replies={"agent": {"markup_left": 1}}),
    {"reward": 0.0, "last_message": {"content": "Then a human. ###TRANSFER###"}},
    _lost("deadline", error="longer than 30 s"),
    {
        "reward": 0.0,
        "sub_rewards": {"ENV_ASSERTION": 0.0},
        "reward_info": {
            "reward": 0.0,
            "reward_basis": ["ENV_ASSERTION"],
            "env_assertions": [
                {
                    "env_assertion": {"env_type": "user", "func_name": "assert_on", "arguments": {"a": 1}},
                    "met": False,
                    "reward": 0.0,
                }
            ],
        },
    },
)
"""Of the first records, in their order."""
