"""The benchmark's own environment and evaluator, for the tests to compare with.

Its databases are loaded once, and hashed without looking again at what nobody has touched: the same hash, as tests
say, in a small part of the time.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import Message, Task

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

RANDOM_ID = "0123456789abcdef"
"""What `uuid4().hex` gives while a comparison runs: the only random thing in the package's tools."""


@dataclass(frozen=True)
class Record:
    """A record as it was loaded."""

    value: Any
    pickled: bytes
    text: str
    """As it is hashed."""


class Table(dict[str, Any]):
    """Records by their ids. Each is the one of all environments until it is asked for, which gives a copy.

    Who goes through all of them (tools that search do) is given the shared ones; `assert_untouched` finds a change.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        super().__init__((key, record.value) for key, record in records.items())
        self._shared = dict(records)

    def __getitem__(self, key: str) -> Any:
        if record := self._shared.pop(key, None):
            super().__setitem__(key, pickle.loads(record.pickled))
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._shared.pop(key, None)
        super().__setitem__(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  (which is this method)

    def pop(self, key: str, *default: Any) -> Any:
        self._shared.pop(key, None)
        return super().pop(key, *default)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("no tool of the package does this; see to it that it gets copies")

    __delitem__ = __or__ = __ior__ = copy = popitem = setdefault = update = clear = _refuse

    def text(self) -> str:
        """The table as JSON with sorted keys."""
        shared = self._shared
        texts = {key: shared[key].text if key in shared else _as_json(self[key]) for key in self}
        return "{" + ", ".join(f"{json.dumps(key)}: {texts[key]}" for key in sorted(texts)) + "}"


def _is_table(value: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(value, dict) and bool(value) and all(isinstance(record, BaseModel) for record in value.values())


def _as_json(value: Any) -> str:
    return json.dumps(value.model_dump() if hasattr(value, "model_dump") else value, sort_keys=True, default=str)


def database_hash(database: Any) -> str:
    """What the package's `get_db_hash` says of a database."""
    if not any(isinstance(value, Table) for _, value in database):
        text = _as_json(database)
    else:
        texts = {name: value.text() if isinstance(value, Table) else None for name, value in database}
        if None in texts.values():
            rest = database.model_dump(include={name for name, known in texts.items() if known is None})
            texts.update((name, _as_json(value)) for name, value in rest.items())
        text = "{" + ", ".join(f"{json.dumps(name)}: {texts[name]}" for name in sorted(texts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _records(kind: type, path: str, field: str) -> dict[str, Record]:
    return {
        key: Record(value, pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _as_json(value))
        for key, value in getattr(_loaded(kind, path), field).items()
    }


_TABLES: set[tuple[type, str, str]] = set()
"""Which were shared."""


def assert_untouched() -> None:
    """No tool changed a record that all environments share."""
    for table in _TABLES:
        for record in _records(*table).values():
            assert _as_json(record.value) == record.text


@cache
def _loaded(kind: type, path: str) -> Any:
    from tau2.utils import load_file

    return kind.model_validate(load_file(path))  # type: ignore[attr-defined]


def _load(cls: type, path: Any) -> Any:
    """A database of one's own, as far as anybody can tell."""
    whole = _loaded(cls, str(path))
    fields = {}
    for name, value in whole:
        if _is_table(value):
            _TABLES.add((cls, str(path), name))
            fields[name] = Table(_records(cls, str(path), name))
        else:
            fields[name] = copy.deepcopy(value)
    return cls.model_construct(whole.model_fields_set, **fields)  # type: ignore[attr-defined]


def _vpn_defaults() -> Any:
    from tau2.domains.telecom.user_tools import TelecomUserTools

    return TelecomUserTools


load_domain("telecom")
_VPN_DETAILS = _vpn_defaults().default_vpn_details.model_copy(deep=True)


def like_a_fresh_process() -> None:
    """Undo what earlier simulations of the package left in its classes."""
    _vpn_defaults().default_vpn_details = _VPN_DETAILS.model_copy(deep=True)


@contextmanager
def package() -> Iterator[None]:
    """While it lasts, the package loads databases from a cache and draws no random ids; its classes are fresh."""
    from tau2.environment.db import DB
    from tau2.environment.toolkit import ToolKitBase

    like_a_fresh_process()
    drawn = mock.Mock(uuid4=lambda: mock.Mock(hex=RANDOM_ID))
    with (
        mock.patch.object(DB, "load", classmethod(_load)),
        mock.patch.object(ToolKitBase, "get_db_hash", lambda toolkit: database_hash(toolkit.db)),
        mock.patch("tau2.domains.telecom.tools.uuid", drawn),
    ):
        yield
    like_a_fresh_process()


def new_environment(domain: str, solo: bool = False) -> Any:
    """An environment as the package makes it; call inside `package()`."""
    from tau2.registry import registry

    options = {"solo_mode": True} if solo else {}
    return registry.get_env_constructor(domain)(**options)


def set_initial_state(environment: Any, task: Task) -> None:
    """Bring an environment of the package into a task's initial state, as its orchestrator does."""
    start = task.initial_state
    environment.set_state(
        initialization_data=start.initialization_data if start is not None else None,
        initialization_actions=start.initialization_actions if start is not None else None,
        message_history=(start.message_history if start is not None else None) or [],
    )


def reward_info(
    domain: str,
    task: Task,
    messages: list[Message],
    ending: str,
    *,
    solo: bool = False,
    nl_verdicts: list[tuple[str, bool, str]] | None = None,
) -> dict[str, Any]:
    """What the package's evaluator says of a trajectory; call inside `package()`."""
    from tau2.data_model.simulation import NLAssertionCheck, SimulationRun
    from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation
    from tau2.evaluator.evaluator_nl_assertions import NLAssertionsEvaluator

    like_a_fresh_process()
    run = SimulationRun(
        id="run",
        task_id=task.id,
        start_time="",
        end_time="",
        duration=0.0,
        termination_reason=ending,
        messages=messages,
    )
    kind = EvaluationType.ALL if nl_verdicts is None else EvaluationType.ALL_WITH_NL_ASSERTIONS
    checks = [NLAssertionCheck(nl_assertion=text, met=met, justification=why) for text, met, why in nl_verdicts or []]
    with mock.patch.object(NLAssertionsEvaluator, "evaluate_nl_assertions", classmethod(lambda *_: checks)):
        info = evaluate_simulation(run, task, kind, solo, domain)
    dumped: dict[str, Any] = info.model_dump(mode="json")
    return dumped
