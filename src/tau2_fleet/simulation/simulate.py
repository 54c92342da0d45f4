"""One simulation from its job to its record: set the context, hold the conversation, score it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.custom.process import ChildError
from tau2_fleet.evaluation.reward import evaluate
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.llm.call_log import as_dict
from tau2_fleet.llm.timebox import Timebox
from tau2_fleet.llm.types import ChatMessage, ContextOverflowError, DeadlineError, FatalModelError, ModelError
from tau2_fleet.record.line import UNSEEN_CALLS, Record, SimulationKey
from tau2_fleet.simulation.conversation import Conversation
from tau2_fleet.simulation.domain_context import DomainContext
from tau2_fleet.simulation.judge import JudgeError, Judgement, judge
from tau2_fleet.simulation.parties import Parties, make_parties
from tau2_fleet.simulation.party import PartyError
from tau2_fleet.simulation.sessions import PromptSink, Sessions
from tau2_fleet.telemetry.events import Scope, SimulationDone, current_scope, emit
from tau2_fleet.users.simulated_user import speaks_as_agent

if TYPE_CHECKING:
    from tau2.data_model.message import Message
    from tau2.data_model.tasks import Task

    from tau2_fleet.benchmark.environment import FinalState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SimulationJob:
    """One simulation to be run."""

    key: SimulationKey
    seed: int
    """The trial's seed, sent with every request that takes one."""
    thread: int
    """The simulation's number in log lines."""


@dataclass(slots=True)
class _ConversationOutcome:
    """How a conversation went and what its score is made of."""

    ending: TerminationReason = TerminationReason.infrastructure_error
    error: str | None = None
    messages: Sequence[Message] = ()
    begun_with: int = 0
    """Messages that the task brought."""
    final_state: FinalState | None = None
    judgement: Judgement | None = None

    def failed(self, ending: TerminationReason, error: str) -> None:
        """The infrastructure's endings overwrite all others."""
        self.ending, self.error = ending, error

    @property
    def notes(self) -> dict[str, Any]:
        """Counts for the record; of a conversation that was cut short too."""
        said = self.messages[self.begun_with :]
        turns = sum(1 for message in said if message.role == "user" and speaks_as_agent(message.content))
        own = [message.raw_data or {} for message in said if message.role == "assistant"]
        unseen = sum(UNSEEN_CALLS in about for about in own)
        return ({"user_turns_as_agent": turns} if turns else {}) | ({UNSEEN_CALLS: unseen} if unseen else {})


@dataclass(slots=True)
class _Stopwatch:
    """When a simulation began, on the wall and on the processor's clock."""

    started: datetime = field(default_factory=datetime.now)
    begun_s: float = field(default_factory=time.perf_counter)

    @property
    def duration_s(self) -> float:
        return time.perf_counter() - self.begun_s


class Simulation:
    """One run of one task; `run` gives its record, whatever happens in it."""

    def __init__(self, context: DomainContext, task: Task, job: SimulationJob, keep_prompt: PromptSink) -> None:
        self.context = context
        self.task = task
        self.job = job
        self.keep_prompt = keep_prompt
        timeout_s = context.settings.simulation_timeout_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.sessions = Sessions(context.settings.run_id, job.key, job.seed, deadline)
        self._parties: Parties | None = None
        self._outcome = _ConversationOutcome()
        self._life: asyncio.Timeout | None = None
        self._cancelled: str | None = None
        self.fatal: str | None = None
        """Set when a model said that it will refuse every further call: the run had better stop."""

    async def run(self) -> Record:
        """Hold the conversation and score it; only a cancellation of the task comes out as an exception."""
        key = self.job.key
        token = current_scope.set(Scope(key.domain, key.task_id, key.trial, self.job.thread))
        clock = _Stopwatch()
        try:
            record = self._record(await self._lived(), clock)
            emit(
                SimulationDone(
                    termination_reason=record.termination_reason,
                    reward=record.reward,
                    duration_ms=record.duration_s * 1000,
                    cost_usd=self.sessions.calls.cost_usd,
                )
            )
            return record
        finally:
            if self._parties is not None:
                await self._parties.close()
            self.sessions.close()
            current_scope.reset(token)

    def cancel(self, reason: str) -> bool:
        """End the simulation here as an infrastructure error; what was said and spent so far stands in its record.

        False: it is over, and its record says how.
        """
        if self._life is None:
            return False
        self._cancelled = reason
        self._life.reschedule(asyncio.get_running_loop().time())
        return True

    async def _lived(self) -> _ConversationOutcome:
        """The conversation to its end, or to `cancel`."""
        try:
            async with asyncio.timeout(None) as self._life:
                await self._converse()
        except TimeoutError:
            assert self._cancelled is not None
            self._outcome.failed(TerminationReason.infrastructure_error, self._cancelled)
        finally:
            self._life = None
        return self._outcome

    async def _converse(self) -> None:
        outcome = self._outcome
        conversation = None
        try:
            await self.context.domain.make_ready(self.task)
            environment = self.context.domain.environment(self.task, solo=self.context.solo)
            parties = self._parties = make_parties(self.context, self.task, self.sessions)
            settings, calls = self.context.settings, self.sessions.calls
            conversation = Conversation(parties.agent, parties.user, environment, settings.rules, calls)
            outcome.messages, outcome.begun_with = conversation.trajectory, len(parties.history)
            async with Timebox(settings.simulation_timeout_s, self.sessions.held_up, lambda: settings.pause.on):
                outcome.ending = await conversation.run(parties.history, self.context.greeting)
                if outcome.ending in (TerminationReason.agent_error, TerminationReason.user_error):
                    outcome.error = conversation.problem
        except Exception as error:
            outcome.failed(*self._diagnose(error))
        if conversation is None:
            return
        parties.conversation_over(str(outcome.ending))
        try:
            if outcome.ending.regular:
                outcome.judgement = await self._judge(outcome.messages)
            outcome.final_state = await environment.final_state()
        except Exception as error:
            ending, text = self._diagnose(error)
            outcome.failed(ending, f"scoring: {text}")

    def _diagnose(self, error: Exception) -> tuple[TerminationReason, str]:
        """The ending that an exception stands for, and what to say of it."""
        if isinstance(error, FatalModelError):
            self.fatal = str(error)
        if isinstance(error, PartyError):
            return error.ending, str(error)
        if isinstance(error, ContextOverflowError):
            return TerminationReason.context_overflow, str(error)
        if isinstance(error, (DeadlineError, ToolDeadline)):
            return TerminationReason.deadline, str(error)
        if isinstance(error, TimeoutError):
            return TerminationReason.deadline, f"longer than {self.context.settings.simulation_timeout_s} s"
        if isinstance(error, ModelError | ChildError):
            return TerminationReason.infrastructure_error, str(error)
        log.error("%s failed unexpectedly", self.job.key.label, exc_info=error)
        return TerminationReason.infrastructure_error, f"{type(error).__name__}: {error}"

    def _record(self, outcome: _ConversationOutcome, clock: _Stopwatch) -> Record:
        domain = self.context.domain
        evaluation = evaluate(
            self.task,
            outcome.messages,
            outcome.ending,
            outcome.final_state,
            None if outcome.judgement is None else outcome.judgement.verdicts,
            domain.rules,
            domain.tool_types if domain.rules.tool_types else None,
        )
        notes, calls = outcome.notes, self.sessions.calls
        if unseen := calls.unseen + notes.get(UNSEEN_CALLS, 0):
            notes[UNSEEN_CALLS] = unseen
        if evaluation.notes:
            notes["scoring"] = list(evaluation.notes)
        key = self.job.key
        return Record(
            id=str(uuid.uuid4()),
            domain=key.domain,
            task_id=key.task_id,
            trial=key.trial,
            seed=self.job.seed,
            attempt=self.context.settings.attempt,
            started=clock.started.isoformat(),
            ended=datetime.now().isoformat(),
            duration_s=clock.duration_s,
            termination_reason=str(outcome.ending),
            reward=evaluation.reward,
            sub_rewards=evaluation.sub_rewards,
            db_diff=evaluation.db_diff,
            reward_info=evaluation.reward_info,
            messages=[_dump(message, index) for index, message in enumerate(outcome.messages)],
            calls=calls.calls,
            usage_by_role={role: as_dict(usage) for role, usage in calls.usage_by_role.items()},
            cost_by_role=dict(calls.cost_by_role),
            replies=calls.replies,
            prompts=self.sessions.prompts(self.keep_prompt),
            tools=self.sessions.offered_tools(self.keep_prompt),
            notes=notes,
            error=outcome.error,
            judge_answer=None if outcome.judgement is None else outcome.judgement.answer,
        )

    async def _judge(self, messages: Sequence[Message]) -> Judgement | None:
        """Verdicts on the natural-language assertions, when they count or are always wanted."""
        criteria = self.task.evaluation_criteria
        if criteria is None:
            return None
        in_basis = "NL_ASSERTION" in self.context.domain.rules.basis(criteria)
        if not (in_basis or self.context.settings.judge_always):
            return None
        if not criteria.nl_assertions:
            return Judgement([])
        model = self.context.settings.clients.judge
        if model is None:
            raise JudgeError("the task needs a judge and there is none (judge=none)")
        system, question = prompts.judge_messages(prompts.judge_transcript(messages), criteria.nl_assertions)
        session = self.sessions.open("judge", model, ChatMessage("system", system))
        return await judge(session, question, criteria.nl_assertions)


def _dump(message: Message, turn_idx: int) -> dict[str, Any]:
    """A message in the benchmark's schema."""
    fields: dict[str, Any] = message.model_dump()
    fields["turn_idx"] = turn_idx
    return fields
