"""Scores one finished simulation again; `rescore.py` asks for each of a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.recorded import recorded_verdicts
from tau2_fleet.evaluation.success import TOLERANCE, is_success
from tau2_fleet.record.results_file import Simulation

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from tau2_fleet.benchmark.domains import Domain
    from tau2_fleet.benchmark.package import Message, Task
    from tau2_fleet.evaluation.reward import Evaluation


class Refused(Exception):
    """A simulation that cannot be scored; the message says where and why."""


@dataclass(slots=True)
class Scored:
    """One simulation before and after."""

    name: str
    """`task trial n`."""
    old: float | None
    new: float | None = None
    """None when refused."""
    detail: str = ""
    """Why it was refused, or which sub-rewards are below 1."""

    @property
    def changed(self) -> bool:
        return self.new is not None and (self.old is None or abs(self.new - self.old) > TOLERANCE)


def alone(simulation: Simulation) -> bool:
    """Whether an agent of any name has worked without a user: only such a one can end a simulation itself."""
    if simulation.get("termination_reason") != "agent_stop":
        return False
    messages = simulation.get("messages")
    return isinstance(messages, list) and not any(
        isinstance(one, dict) and one.get("role") == "user" for one in messages
    )


async def score_again(
    domain: Domain, tasks: dict[str, Task], simulation: dict[str, Any], *, solo: bool, record: bool = False
) -> Scored:
    """Score a simulation and put the result into it; a refused one stays as it is."""
    old_info = simulation.get("reward_info")
    old_info = old_info if isinstance(old_info, dict) else {}
    old = simulation.get("reward") if record else old_info.get("reward")
    scored = Scored(
        f"{simulation.get('task_id')} trial {simulation.get('trial') or 0}",
        float(old) if isinstance(old, int | float) else None,
    )
    try:
        evaluation = await _evaluate(domain, tasks, simulation, old_info, solo)
    except Refused as error:
        scored.detail = str(error)
        return scored
    scored.new = evaluation.reward
    scored.detail = ", ".join(
        f"{kind} {value:g}" for kind, value in evaluation.sub_rewards.items() if not is_success(value)
    )
    reward_info = evaluation.reward_info
    old_note = (old_info.get("info") or {}).get("note") if isinstance(old_info.get("info"), dict) else None
    if old_note is not None and reward_info["reward_basis"] is None:
        # The true reason of an ending that the schema does not know stands there.
        reward_info = {**reward_info, "info": {"note": old_note}}
    simulation["reward_info"] = reward_info
    if record:
        simulation["reward"] = evaluation.reward
        simulation["sub_rewards"] = evaluation.sub_rewards
        simulation["db_diff"] = evaluation.db_diff
    return scored


async def _evaluate(
    domain: Domain, tasks: dict[str, Task], simulation: dict[str, Any], old_info: dict[str, Any], solo: bool
) -> Evaluation:
    """Replay and score.

    Raises:
        Refused: the trajectory does not fit the environment, or the judge's verdicts are missing.
    """
    from pydantic import ValidationError

    from tau2_fleet.benchmark.calculator import ToolDeadline
    from tau2_fleet.benchmark.transcript import TranscriptError
    from tau2_fleet.evaluation.reward import evaluate

    task = tasks.get(str(simulation.get("task_id")))
    if task is None:
        raise Refused("its task is not in the file" if tasks else "its task is not known")
    try:
        messages = _message_list().validate_python(simulation.get("messages"))
    except ValidationError as error:
        problem = error.errors()[0]
        raise Refused(f"messages.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    reason = str(simulation.get("termination_reason"))
    state = None
    if reason in ("user_stop", "agent_stop") and task.evaluation_criteria is not None:
        try:
            state, _ = await domain.replayed(task, messages, solo=solo)
        except (TranscriptError, ToolDeadline, UserError) as error:
            raise Refused(str(error)) from error
    try:
        types = domain.tool_types if domain.rules.tool_types else None
        return evaluate(task, messages, reason, state, recorded_verdicts(old_info), domain.rules, types)
    except ValueError as error:
        raise Refused(str(error)) from error


@cache
def _message_list() -> TypeAdapter[list[Message]]:
    from pydantic import TypeAdapter

    from tau2_fleet.benchmark.package import Message

    return TypeAdapter(list[Message])
