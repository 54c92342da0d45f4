"""The benchmark's own environment and evaluator, for the tests to compare with; its databases load from a cache."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import Message, Task

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

RANDOM_ID = "0123456789abcdef"
"""What `uuid4().hex` gives while a comparison runs: the only random thing in the package's tools."""


@cache
def _pickled(kind: type, path: str) -> bytes:
    from tau2.utils import load_file

    return pickle.dumps(kind.model_validate(load_file(path)), pickle.HIGHEST_PROTOCOL)  # type: ignore[attr-defined]


def _load(cls: type, path: Any) -> Any:
    enabled = gc.isenabled()
    gc.disable()
    try:
        return pickle.loads(_pickled(cls, str(path)))
    finally:
        if enabled:
            gc.enable()


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

    like_a_fresh_process()
    drawn = mock.Mock(uuid4=lambda: mock.Mock(hex=RANDOM_ID))
    with mock.patch.object(DB, "load", classmethod(_load)), mock.patch("tau2.domains.telecom.tools.uuid", drawn):
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
