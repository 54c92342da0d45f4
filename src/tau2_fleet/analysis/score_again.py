"""Scores one finished simulation again, under one version of the benchmark; `rescore.py` asks for each of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.recorded import recorded_verdicts
from tau2_fleet.evaluation.success import TOLERANCE, is_success
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.record.results_file import UNREADABLE, Simulation

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from tau2_fleet.benchmark.domain import Domain
    from tau2_fleet.benchmark.package import Message, Task
    from tau2_fleet.evaluation.reward import Evaluation


class Unscorable(Exception):
    """A simulation that cannot be scored; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How simulations are to be scored again."""

    strict: bool = False
    """Refuse a trajectory whose recorded outputs are not those of the replay; else they are counted."""
    answers: Mapping[str, str | None] = field(default_factory=dict)
    """The judge's answers by the id of the simulation; where there is none, its recorded verdicts count."""


@dataclass(slots=True)
class Scored:
    """One simulation before and after."""

    name: str
    """`task trial n`."""
    old: float | None
    new: float | None = None
    """None when refused."""
    detail: str = ""
    """Why it was refused, or which sub-rewards are below 1, and what a reader should know."""
    differences: int = 0
    """Recorded outputs that the replay did not give again."""
    ending: str = ""
    task: str = ""
    """By which trials of one task are known."""
    domain: str = ""

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


def name_of(simulation: Simulation) -> str:
    """What people know it by."""
    task = simulation.get("task_id")
    known = f"simulation {simulation.get('id')}" if task is None else task
    return f"{known} trial {simulation.get('trial') or 0}"


async def score_again(
    domain: Domain,
    tasks: Mapping[str, Task],
    simulation: Simulation,
    *,
    solo: bool,
    record: bool = False,
    ways: Ways | None = None,
    unscorable: Mapping[str, str] | None = None,
) -> Scored:
    """Score a simulation and put the result into it; a refused one stays as it is.

    Args:
        unscorable: tasks that ask for what nothing here can check, with the words for it.
    """
    old_info = simulation.get("reward_info")
    old_info = old_info if isinstance(old_info, dict) else {}
    old = simulation.get("reward") if record else old_info.get("reward")
    scored = Scored(
        name_of(simulation),
        float(old) if isinstance(old, int | float) and isfinite(old) else None,
        ending=str(simulation.get("termination_reason") or ""),
        task=str(simulation.get("task_id")),
        domain=domain.name,
    )
    try:
        if why := simulation.get(UNREADABLE) or (unscorable or {}).get(str(simulation.get("task_id"))):
            raise Unscorable(why)
        evaluation = await _evaluate(domain, tasks, simulation, old_info, solo, record, ways or Ways(), scored)
    except Unscorable as error:
        scored.detail = str(error)
        return scored
    scored.new = evaluation.reward
    below = ", ".join(f"{kind} {value:g}" for kind, value in evaluation.sub_rewards.items() if not is_success(value))
    scored.detail = "; ".join(part for part in (below, scored.detail) if part)
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
    domain: Domain,
    tasks: Mapping[str, Task],
    simulation: Simulation,
    old_info: dict[str, Any],
    solo: bool,
    record: bool,
    ways: Ways,
    scored: Scored,
) -> Evaluation:
    """Replay and score.

    Raises:
        Unscorable: the trajectory does not fit the environment, or the judge's verdicts are missing.
    """
    from tau2_fleet.benchmark.calculator import ToolDeadline
    from tau2_fleet.benchmark.environment import FinalState
    from tau2_fleet.benchmark.transcript import TranscriptError
    from tau2_fleet.evaluation.reward import evaluate
    from tau2_fleet.evaluation.verdicts import verdicts_in

    rules = domain.rules
    if simulation.get("task_id") is None:
        raise Unscorable("it has no task_id")
    task = tasks.get(str(simulation["task_id"]))
    if task is None:
        raise Unscorable("its task is not in the file" if tasks else "its task is not known")
    reason = _ending(simulation, rules.endings | (OURS if record else frozenset()), rules.name)
    unsaid = simulation.get("messages") is None and reason not in rules.scored_endings
    messages = [] if unsaid else _messages(simulation)
    state = None
    criteria = task.evaluation_criteria
    looked_at = reason in rules.scored_endings and criteria is not None
    if looked_at and criteria is not None and criteria.actions is None and criteria.env_assertions is None:
        # Nothing is compared then, and the benchmark's evaluators do not even replay the run.
        state = FinalState(compared=False, db_match=True, differences=(), assertions=())
    elif looked_at:
        try:
            state, different = await domain.replayed(task, messages, solo=solo, strict=ways.strict)
        except (TranscriptError, ToolDeadline, UserError) as error:
            raise Unscorable(str(error)) from error
        scored.differences = len(different)
        if different:
            scored.detail = f"{len(different)} other output(s): {different[0]}"
        if state.failed_assertions:
            raise Unscorable(state.failed_assertions[0])
    verdicts = recorded_verdicts(old_info)
    wanted = criteria is not None and "NL_ASSERTION" in rules.basis(criteria)
    if wanted and criteria is not None and not criteria.nl_assertions:
        verdicts = []
    elif str(simulation.get("id")) in ways.answers:
        verdicts = None
        if wanted and state is not None:
            try:
                verdicts = verdicts_in(ways.answers[str(simulation.get("id"))])
            except ValueError as error:
                raise Unscorable(str(error)) from error
    if wanted and verdicts is not None and criteria is not None:
        missing = len(criteria.nl_assertions or ()) - len(verdicts)
        if missing > 0:
            scored.detail = f"{missing} missing verdict(s) pass by the rules of {rules.name}"
    try:
        return evaluate(
            task,
            messages,
            reason,
            state,
            verdicts,
            rules,
            domain.tool_types if rules.tool_types and state is not None else None,
            missing_verdicts_pass=True,
        )
    except ValueError as error:
        raise Unscorable(str(error)) from error


def _ending(simulation: Simulation, known: frozenset[Any], version: str) -> str:
    """Raises Unscorable where there is none, or one that the version cannot have."""
    reason = simulation.get("termination_reason")
    if not isinstance(reason, str) or not reason:
        raise Unscorable("it has no termination_reason, so nobody knows whether it came to its end")
    if reason not in known:
        raise Unscorable(f"its ending {reason} is none of {version}'s")
    return reason


def _messages(simulation: Simulation) -> list[Message]:
    """The conversation.

    Raises:
        Unscorable: it is a voice run, or not of the benchmark's form.
    """
    from pydantic import ValidationError

    if simulation.get("mode") == "full_duplex" or simulation.get("ticks"):
        raise Unscorable("a voice run (full duplex, in ticks): only conversations in text can be scored here")
    try:
        return _message_list().validate_python(simulation.get("messages"))
    except ValidationError as error:
        raise Unscorable(_problem(error.errors(), simulation.get("messages"))) from error


_KINDS = {"system": "SystemMessage", "user": "UserMessage", "assistant": "AssistantMessage", "tool": "ToolMessage"}
"""Role to the form of its messages."""


def _problem(errors: Sequence[Mapping[str, Any]], messages: Any) -> str:
    """What is wrong with a conversation: a message is tried as every form, and its role says which was meant."""
    if not isinstance(messages, list):
        return "its messages are not a list"
    at = errors[0]["loc"][0]
    message = messages[at]
    if not isinstance(message, dict):
        return f"message {at} is not an object"
    kind = _KINDS.get(str(message.get("role")))
    if kind is None:
        return f"message {at} has the role {message.get('role')!r}; roles are {', '.join(_KINDS)}"
    meant = next((one for one in errors if one["loc"][:2] == (at, kind)), errors[0])
    return f"message {at} ({message['role']}): {'.'.join(map(str, meant['loc'][2:]))}: {meant['msg']}"


@cache
def _message_list() -> TypeAdapter[list[Message]]:
    from pydantic import TypeAdapter

    from tau2_fleet.benchmark.package import Message

    return TypeAdapter(list[Message])
