"""One simulation from its job to its record: set the context, hold the conversation, score it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tau2_fleet.agents.expert_handoff import ExpertHandoff
from tau2_fleet.agents.tool_calling import Agent
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.evaluation.reward import NLCheck, evaluate
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.llm.call_log import CallLog, as_dict
from tau2_fleet.llm.message_views import agent_view, own_turn, user_view
from tau2_fleet.llm.session import ModelSession
from tau2_fleet.llm.types import ChatMessage, ContextOverflowError, DeadlineError, FatalModelError, ModelError, ToolSet
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.simulation.conversation import Conversation
from tau2_fleet.simulation.domain_context import DomainContext, prompt_digest
from tau2_fleet.simulation.judge import JudgeError, judge
from tau2_fleet.telemetry.events import Scope, SimulationDone, current_scope, emit
from tau2_fleet.users.simulated_user import User

if TYPE_CHECKING:
    from tau2.data_model.message import Message
    from tau2.data_model.tasks import Task

    from tau2_fleet.benchmark.environment import FinalState
    from tau2_fleet.llm.types import ChatModel

log = logging.getLogger(__name__)

PromptSink = Callable[[str, str], None]
"""Takes a prompt's digest and text, for `prompts.jsonl`."""


@dataclass(frozen=True, slots=True)
class SimulationJob:
    """One simulation to be run."""

    key: SimulationKey
    seed: int
    """The trial's seed, sent with every request that takes one."""
    thread: int
    """The simulation's number in log lines."""


@dataclass(slots=True)
class _Outcome:
    """How a simulation ended and what its score is made of."""

    ending: TerminationReason
    error: str | None = None
    final_state: FinalState | None = None
    verdicts: list[NLCheck] | None = None

    def failed(self, ending: TerminationReason, error: str) -> None:
        """The infrastructure's endings overwrite all others."""
        self.ending, self.error = ending, error


@dataclass(slots=True)
class _Parties:
    """Both sides of a conversation and where it begins."""

    agent: Agent
    user: User | None
    history: list[Message]

    @property
    def notes(self) -> dict[str, Any]:
        """Counts for the record; of a conversation that was cut short too."""
        turns = 0 if self.user is None else self.user.turns_as_agent
        return {"user_turns_as_agent": turns} if turns else {}


class Simulation:
    """One run of one task; `run` gives its record, whatever happens in it."""

    def __init__(self, context: DomainContext, task: Task, job: SimulationJob, keep_prompt: PromptSink) -> None:
        self.context = context
        self.task = task
        self.job = job
        self.keep_prompt = keep_prompt
        self.calls = CallLog()
        self.prompts: dict[str, str] = {}
        self._sessions: list[ModelSession] = []
        timeout_s = context.settings.simulation_timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.fatal: str | None = None
        """Set when a model said that it will refuse every further call: the run had better stop."""

    async def run(self) -> Record:
        """Hold the conversation and score it; only a cancellation comes out as an exception."""
        key = self.job.key
        token = current_scope.set(Scope(key.domain, key.task_id, key.trial, self.job.thread))
        begun, started = time.perf_counter(), datetime.now()
        try:
            record = await self._converse()
            record.started = started.isoformat()
            record.duration_s = time.perf_counter() - begun
            emit(
                SimulationDone(
                    termination_reason=record.termination_reason,
                    reward=record.reward,
                    duration_ms=record.duration_s * 1000,
                    cost_usd=self.calls.cost_usd,
                )
            )
            return record
        finally:
            for session in self._sessions:
                session.model.end_session(session.session_id)
            current_scope.reset(token)

    async def _converse(self) -> Record:
        parties = conversation = None
        outcome = _Outcome(TerminationReason.infrastructure_error)
        try:
            environment = self.context.domain.environment(self.task, solo=self.context.solo)
            parties = self._parties()
            conversation = Conversation(
                parties.agent, parties.user, environment, self.context.settings.rules, self.calls
            )
            async with asyncio.timeout(self.context.settings.simulation_timeout_s):
                outcome.ending = await conversation.run(parties.history, self.context.greeting)
        except Exception as error:
            outcome.failed(*self._diagnose(error))
        messages = [] if conversation is None else conversation.trajectory
        try:
            if conversation is not None:
                if outcome.ending.regular:
                    outcome.verdicts = await self._judge(messages)
                outcome.final_state = await environment.final_state()
        except Exception as error:
            ending, text = self._diagnose(error)
            outcome.failed(ending, f"scoring: {text}")
        return self._record(messages, outcome, {} if parties is None else parties.notes)

    def _diagnose(self, error: Exception) -> tuple[TerminationReason, str]:
        """The ending that an exception stands for, and what to say of it."""
        if isinstance(error, FatalModelError):
            self.fatal = str(error)
        if isinstance(error, ContextOverflowError):
            return TerminationReason.context_overflow, str(error)
        if isinstance(error, (DeadlineError, ToolDeadline)):
            return TerminationReason.deadline, str(error)
        if isinstance(error, TimeoutError):
            return TerminationReason.deadline, f"longer than {self.context.settings.simulation_timeout_s} s"
        if isinstance(error, ModelError):
            return TerminationReason.infrastructure_error, str(error)
        log.error("%s failed unexpectedly", self.job.key.label, exc_info=error)
        return TerminationReason.infrastructure_error, f"{type(error).__name__}: {error}"

    def _record(self, messages: list[Message], outcome: _Outcome, notes: dict[str, Any]) -> Record:
        evaluation = evaluate(self.task, messages, outcome.ending, outcome.final_state, outcome.verdicts)
        if evaluation.notes:
            notes = {**notes, "scoring": list(evaluation.notes)}
        key = self.job.key
        return Record(
            id=str(uuid.uuid4()),
            domain=key.domain,
            task_id=key.task_id,
            trial=key.trial,
            seed=self.job.seed,
            attempt=self.context.settings.attempt,
            started="",
            ended=datetime.now().isoformat(),
            duration_s=0.0,
            termination_reason=str(outcome.ending),
            reward=evaluation.reward,
            sub_rewards=evaluation.sub_rewards,
            db_diff=evaluation.db_diff,
            reward_info=evaluation.reward_info,
            messages=[_dump(message, index) for index, message in enumerate(messages)],
            calls=self.calls.calls,
            usage_by_role={role: as_dict(usage) for role, usage in self.calls.usage_by_role.items()},
            cost_by_role=dict(self.calls.cost_by_role),
            prompts=self.prompts,
            notes=notes,
            error=outcome.error,
        )

    async def _judge(self, messages: list[Message]) -> list[NLCheck] | None:
        """Verdicts on the natural-language assertions, when they count or are always wanted."""
        criteria = self.task.evaluation_criteria
        if criteria is None:
            return None
        in_basis = any(basis.value == "NL_ASSERTION" for basis in criteria.reward_basis)
        if not (in_basis or self.context.settings.judge_always):
            return None
        if not criteria.nl_assertions:
            return []
        model = self.context.settings.clients.judge
        if model is None:
            raise JudgeError("the task needs a judge and there is none (judge=none)")
        system, question = prompts.judge_messages(prompts.judge_transcript(messages), criteria.nl_assertions)
        session = self._session("judge", model, ChatMessage("system", system), None)
        return await judge(session, question, criteria.nl_assertions)

    def _parties(self) -> _Parties:
        context, settings, task = self.context, self.context.settings, self.task
        initial = task.initial_state
        history = [message.model_copy(deep=True) for message in (initial and initial.message_history) or ()]
        before, last = history[:-1], history[-1:]

        agent_session = self._session("agent", settings.clients.agent, context.agent_prompt(task), context.agent_tools)
        agent_history = agent_view(before) + [own_turn(turn) for turn in last if turn.role == "assistant"]
        if not history and not context.solo:
            agent_history = [ChatMessage("assistant", context.greeting)]
        agent_session.history = list(agent_history)
        handoff = None
        if settings.clients.experts:
            expert_prompt = context.expert_prompt(task)
            experts = {
                name: self._session(name, model, expert_prompt, context.expert_tools)
                for name, model in settings.clients.experts.items()
            }
            handoff = ExpertHandoff(experts, history=list(agent_history))
        agent = Agent(
            agent_session,
            handoff=handoff,
            strip_message_tags=settings.strip_message_tags,
            solo_stop=prompts.solo_stop() if context.solo else None,
        )
        user = None
        if not context.solo:
            assert settings.clients.user is not None, "a run that is not solo has a user model"
            user_session = self._session("user", settings.clients.user, context.user_prompt(task), context.user_tools)
            user_session.history = user_view(before) + [own_turn(turn) for turn in last if turn.role == "user"]
            user = User(user_session)
        return _Parties(agent, user, history)

    def _session(self, role: str, model: ChatModel, system: ChatMessage, tools: ToolSet | None) -> ModelSession:
        key = self.job.key
        text = system.content or ""
        digest = prompt_digest(text)
        self.prompts[role] = digest
        self.keep_prompt(digest, text)
        session = ModelSession(
            role=role,
            model=model,
            session_id=f"{self.context.settings.run_id}/{key.domain}/{quote(key.task_id, safe='')}/{key.trial}/{role}",
            system=system,
            tools=tools,
            seed=self.job.seed,
            calls=self.calls,
            deadline=self.deadline,
            tool_choice="required" if self.context.solo and role != "judge" else None,
        )
        self._sessions.append(session)
        return session


def _dump(message: Message, turn_idx: int) -> dict[str, Any]:
    """A message in the benchmark's schema."""
    fields: dict[str, Any] = message.model_dump()
    fields["turn_idx"] = turn_idx
    return fields
