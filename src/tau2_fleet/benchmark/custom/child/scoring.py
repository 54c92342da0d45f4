"""The environment's part of a reward: databases after a replay against those after the gold actions, and assertions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .comparison import MAX_DIFFERENCES, differences
from .environments import Call, RegistryDomain, ReplayRules, of_tau2, replay

_Hashes = tuple[Any, Any]


@dataclass(slots=True)
class GoldReplay:
    """What the gold actions of one task leave."""

    domain: RegistryDomain
    task: Any
    history: Sequence[Call]
    rules: ReplayRules
    hashes: _Hashes = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = _hashes(self.environment())

    def environment(self) -> Any:
        """Failing actions are passed over, and nothing is synced between them."""
        environment = self.domain.begun(self.task)
        replay(environment, self.history, self.rules)
        for action in self.task.evaluation_criteria.actions or []:
            try:
                environment.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
            except Exception:
                continue
        return environment


def _hashes(environment: Any) -> _Hashes:
    return environment.get_db_hash(), environment.get_user_db_hash()


def final_state(gold: GoldReplay, environment: Any) -> dict[str, Any]:
    """How an environment stands against the gold one; fields as those of the runner's `FinalState`."""
    found: list[dict[str, str]] = []
    equal = _hashes(environment) == gold.hashes
    if not equal:
        found = _differences(gold.environment(), environment)
    assertions, failed = [], []
    for assertion in gold.task.evaluation_criteria.env_assertions or []:
        try:
            assertions.append(bool(environment.run_env_assertion(assertion, raise_assertion_error=False)))
        except Exception as error:
            assertions.append(False)
            failed.append(f"the assertion {assertion.func_name} failed to run: {error}")
    return {"db_match": equal, "differences": found, "assertions": assertions, "failed": failed}


def _differences(gold: Any, environment: Any) -> list[dict[str, str]]:
    found = []
    if environment.tools is not None:
        found += differences("agent", gold.tools.db, environment.tools.db)
    shared = environment.user_tools is None or environment.user_tools.db is getattr(environment.tools, "db", None)
    if not shared:
        found += differences("user", gold.user_tools.db, environment.user_tools.db)
    return found[:MAX_DIFFERENCES]


def task_of(raw: dict[str, Any]) -> Any:
    """A task in the benchmark's own class."""
    return of_tau2("data_model.tasks", "Task").model_validate(raw)
