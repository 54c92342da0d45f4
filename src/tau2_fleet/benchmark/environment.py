"""The environment of one simulation: answers tool calls as the package does, and tells how the run has ended.

Made by `Domain.environment`; the conversation calls `respond` and `sync`, and `final_state` once at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tau2_fleet.benchmark import tool_calls
from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.comparison import MAX_DIFFERENCES, Difference
from tau2_fleet.benchmark.transcript import Mismatch, RecordedToolCall, TranscriptError, mismatch, recorded_tool_calls

if TYPE_CHECKING:
    from tau2.environment.environment import Environment as PackageEnvironment

    from tau2_fleet.benchmark.environment_template import DatabaseState
    from tau2_fleet.benchmark.package import Message, Task, ToolCall, ToolMessage
    from tau2_fleet.benchmark.prepared import PreparedTask

logger = logging.getLogger(__name__)

_DRAWS_RANDOM_IDS = "refuel_data"
"""On a customer without a draft bill this tool opens one under a random id."""


@dataclass(frozen=True, slots=True)
class FinalState:
    """How the environment stands after a run, against the task's gold state."""

    compared: bool
    """False when the task asks for no comparison: neither actions nor assertions (then `db_match` holds)."""
    db_match: bool
    differences: tuple[Difference, ...]
    """Fields that are not as the gold actions leave them; at most `MAX_DIFFERENCES`."""
    assertions: tuple[bool, ...]
    """Outcome of each of the task's environment assertions, in their order."""
    notes: tuple[str, ...] = ()
    """What a reader of the reward should know: an assertion that failed to run, a call that cannot be replayed."""
    failed_assertions: tuple[str, ...] = ()
    """Assertions that raised: the benchmark's own evaluator has no reward at all then."""


class Environment:
    """Tools and databases of one simulation, shared with the others until it writes to them."""

    __slots__ = ("_calls", "_failed", "_package", "_prepared", "_synced", "solo")

    def __init__(self, prepared: PreparedTask, state: DatabaseState, *, solo: bool = False) -> None:
        self._prepared = prepared
        self._package: PackageEnvironment = prepared.template.open(state, solo=solo)
        self._calls: list[RecordedToolCall] = []
        """Kept only where a replay may be needed: in domains whose user has tools."""
        self._failed = False
        self._synced = state is prepared.opened
        """Whether a further sync would change nothing: the package's only one, telecom's, is idempotent, and it costs
        as much as a tool call."""
        self.solo = solo

    @property
    def task(self) -> Task:
        return self._prepared.task

    @property
    def package_environment(self) -> PackageEnvironment:
        """The package's own object underneath, for tests; its databases are copies on write."""
        self._synced = False
        return self._package

    async def respond(self, call: ToolCall) -> ToolMessage:
        """Run a tool call and give the package's exact answer, an error included.

        Raises:
            ToolDeadline: `calculate` reached its limit of CPU time; the simulation cannot go on.
        """
        self._synced = False
        answer = await tool_calls.respond(self._prepared.template, self._package, call)
        self._synced = not answer.error
        if self._prepared.template.has_user_tools:
            self._calls.append(RecordedToolCall(call, answer, len(self._calls)))
            self._failed = self._failed or answer.error
        return answer

    def sync(self) -> None:
        """Let both sides see what the other has done; the orchestrator does it after every step."""
        if not self._synced:
            self._package.sync_tools()
            self._synced = True

    async def replay(self, recorded: Sequence[RecordedToolCall], *, strict: bool = True) -> list[Mismatch]:
        """Run the recorded calls that the scoring replays, in order; the answers that differ from the recorded ones.

        Args:
            strict: stop at the first that differs. Otherwise only outputs of calls that change state are compared, and
                calls of tools that are not there are passed over.

        Raises:
            TranscriptError: for one of these calls no answer was recorded.
            ToolDeadline: a call reached its limits.
        """
        self._synced = False
        rules, template = self._prepared.rules, self._prepared.template
        found: list[Mismatch] = []
        for item in recorded:
            name = item.call.name
            if not rules.replays(name, template.tool_types) or not (strict or name in template.tool_types):
                continue
            compared = strict or template.tool_types[name] == "write"
            if compared and item.answer.content is None:
                raise TranscriptError(f"message {item.index}, {item.call.name}: no output was recorded")
            answer = await tool_calls.respond(template, self._package, item.call)
            if compared and (difference := mismatch(item, answer)) is not None:
                found.append(difference)
                if strict:
                    break
        return found

    async def final_state(self) -> FinalState:
        """Compare with the gold state and run the task's assertions; asked once, when the run is over."""
        criteria = self.task.evaluation_criteria
        if criteria is None or (criteria.actions is None and criteria.env_assertions is None):
            return FinalState(compared=False, db_match=True, differences=(), assertions=())
        notes: list[str] = []
        package = await self._as_replayed(notes) if self._failed else self._package
        try:
            package.sync_tools()
        except Exception as error:
            notes.append(f"the final sync failed: {error}")
        gold = await self._prepared.gold()
        differences = list(islice(gold.agent.differing(package.tools.db), MAX_DIFFERENCES))
        if gold.user is not None:
            differences += islice(gold.user.differing(package.user_tools.db), MAX_DIFFERENCES - len(differences))
        assertions: list[bool] = []
        failed: list[str] = []
        for assertion in criteria.env_assertions or []:
            try:
                assertions.append(bool(package.run_env_assertion(assertion, raise_assertion_error=False)))
            except Exception as error:
                assertions.append(False)
                failed.append(f"the assertion {assertion.func_name} failed to run: {error}")
        notes += failed
        return FinalState(True, not differences, tuple(differences), tuple(assertions), tuple(notes), tuple(failed))

    async def _as_replayed(self, notes: list[str]) -> PackageEnvironment:
        """The state that the benchmark scores: of a replay, which syncs only after calls that succeed.

        The live one is synced after failed calls too and can differ then. It is kept when the replay gives
        other answers, as it does after a random id.
        """
        again = Environment(self._prepared, self._prepared.initial, solo=self.solo)
        try:
            difference = await again.replay([*self._prepared.history, *self._calls])
        except ToolDeadline as error:
            notes.append(f"scored as it ended, without a replay: {error}")
            return self._package
        if not difference:
            return again._package
        random = next((item.call for item in self._calls if item.call.name == _DRAWS_RANDOM_IDS), None)
        reason = f"{random.name}({random.arguments}) drew a random id" if random is not None else str(difference[0])
        notes.append(f"scored as it ended: a replay gives other answers, because {reason}")
        logger.debug("task %s: %s", self.task.id, difference[0])
        return self._package


@dataclass(frozen=True, slots=True)
class ReplayedRun:
    """An environment after a finished trajectory, and where its answers were not the recorded ones."""

    environment: Environment
    differences: tuple[Mismatch, ...] = ()


async def replayed(prepared: PreparedTask, messages: Sequence[Message], *, solo: bool = False) -> Environment:
    """As `replayed_run`, strictly: a difference is an error.

    Raises:
        TranscriptError: the trajectory is broken, or an answer is not the recorded one.
        ToolDeadline: a call reached its limits.
    """
    return (await replayed_run(prepared, messages, solo=solo)).environment


async def replayed_run(
    prepared: PreparedTask, messages: Sequence[Message], *, solo: bool = False, strict: bool = True
) -> ReplayedRun:
    """An environment after all tool calls of a finished trajectory, the task's message history among them.

    Args:
        strict: an answer that is not the recorded one is an error; otherwise the state is what the replay makes.

    Raises:
        TranscriptError: the trajectory is broken, or an answer is not the recorded one.
        ToolDeadline: a call reached its limits.
    """
    if solo and any(message.role == "user" for message in messages):
        raise TranscriptError("a message of the user in solo mode")
    environment = Environment(prepared, prepared.initial, solo=solo)
    calls = recorded_tool_calls(messages)
    differences = await environment.replay(calls, strict=strict)
    if differences and strict:
        difference = differences[0]
        earlier = [item for item in calls if item.index < difference.index and item.call.name == _DRAWS_RANDOM_IDS]
        hint = f" ({_DRAWS_RANDOM_IDS} in message {earlier[0].index} draws a random bill id)" if earlier else ""
        raise TranscriptError(f"{difference}{hint}")
    return ReplayedRun(environment, tuple(differences))
