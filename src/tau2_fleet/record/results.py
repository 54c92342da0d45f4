"""`{domain}.json`: the records of one domain in the benchmark's own results schema, written as a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tau2_fleet.evaluation.termination import OURS, TerminationReason
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import UNSEEN_CALLS, encode_line


@dataclass(frozen=True, slots=True)
class RoleInfo:
    """What the results say of the agent or the user."""

    implementation: str
    llm: str | None
    llm_args: dict[str, Any]
    global_simulation_guidelines: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsInfo:
    """The head of a results file, in the benchmark's words."""

    git_commit: str
    num_trials: int
    max_steps: int
    max_errors: int
    seed: int
    user: RoleInfo
    agent: RoleInfo
    domain_name: str
    policy: str
    benchmark: dict[str, Any] = field(default_factory=dict)
    """Which benchmark they are of, as in `summary.json`; not in the benchmark's own schema, whose readers pass it
    over."""
    endings: frozenset[str] = frozenset()
    """What that version's schema can hold; `infrastructure_error` is written as it is where it can."""

    def as_dict(self) -> dict[str, Any]:
        agent = dataclasses.asdict(self.agent)
        del agent["global_simulation_guidelines"]
        return {
            "git_commit": self.git_commit,
            "num_trials": self.num_trials,
            "max_steps": self.max_steps,
            "max_errors": self.max_errors,
            "user_info": dataclasses.asdict(self.user),
            "agent_info": agent,
            "environment_info": {"domain_name": self.domain_name, "policy": self.policy, "tool_defs": None},
            "seed": self.seed,
            **({"benchmark": self.benchmark} if self.benchmark else {}),
        }


def write_results(
    path: Path, info: ResultsInfo, tasks: Iterable[dict[str, Any]], records: Iterable[dict[str, Any]]
) -> None:
    """Write the file under a temporary name and move it into place; one record at a time in memory.

    Args:
        tasks: ready for JSON, as `Domain.as_written` gives them.
    """
    with replaced(path) as file:
        file.write(b'{"timestamp": ' + encode_line(datetime.now().isoformat()).rstrip())
        file.write(b',\n"info": ' + encode_line(info.as_dict()).rstrip())
        file.write(b',\n"tasks": [\n')
        for index, task in enumerate(tasks):
            file.write((b"," if index else b"") + encode_line(task))
        file.write(b'],\n"simulations": [\n')
        for index, record in enumerate(records):
            file.write((b"," if index else b"") + encode_line(as_simulation_run(record, info.endings)))
        file.write(b"]}\n")


def as_simulation_run(record: dict[str, Any], endings: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A record as the benchmark's `SimulationRun`.

    The endings that its schema does not know (it knows `endings`) are written as `agent_error` with reward 0, the true
    reason in `reward_info.info.note`.
    """
    reason = record["termination_reason"]
    reward_info = record["reward_info"]
    if reason in OURS:
        note = f"{reason}: {record['error']}" if record["error"] else reason
        info = reward_info.get("info")
        info = {**(info if isinstance(info, dict) else {}), "note": note}
        reward_info = {**reward_info, "reward": 0.0, "info": info}
        if reason not in endings:
            reason = TerminationReason.agent_error.value
    costs = record["cost_by_role"]
    user_cost = costs.get("user", 0.0)
    own = [cost for role, cost in costs.items() if role not in ("user", "judge")]
    agent_cost = None if (record.get("notes") or {}).get(UNSEEN_CALLS) else sum(own)
    return {
        "id": record["id"],
        "task_id": record["task_id"],
        "timestamp": record["ended"],
        "start_time": record["started"],
        "end_time": record["ended"],
        "duration": record["duration_s"],
        "termination_reason": reason,
        "agent_cost": agent_cost,
        "user_cost": user_cost,
        "reward_info": reward_info,
        "messages": record["messages"],
        "trial": record["trial"],
        "seed": record["seed"],
    }
