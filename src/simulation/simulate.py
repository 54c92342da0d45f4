"""One simulation from its job to its record: set the stage, hold the conversation, score it."""

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

from src.benchmark import prompts
from src.benchmark.calculator import ToolDeadline
from src.evaluation.endings import TerminationReason
from src.evaluation.reward import NLCheck, evaluate
from src.llm.types import ChatMessage, ContextOverflowError, DeadlineError, FatalModelError, ModelError, ToolSet
from src.simulation.agent import Agent
from src.simulation.calls import CallLog, as_dict
from src.simulation.conversation import Conversation
from src.simulation.experts import Consultation
from src.simulation.judge import JudgeError, judge
from src.simulation.record import Key, Record
from src.simulation.stage import Stage, prompt_digest
from src.simulation.translate import agent_view, own_turn, user_view
from src.simulation.user import User
from src.simulation.voice import Voice
from src.telemetry.events import Scope, SimulationDone, current_scope, emit

if TYPE_CHECKING:
    from tau2.data_model.message import Message
    from tau2.data_model.tasks import Task

    from src.benchmark.environment import FinalState
    from src.llm.types import ChatModel

log = logging.getLogger(__name__)

PromptSink = Callable[[str, str], None]
"""Takes a prompt's digest and text, for `prompts.jsonl`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation to be run."""

    key: Key
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

    def __init__(self, stage: Stage, task: Task, job: Job, keep_prompt: PromptSink) -> None:
        self.stage = stage
        self.task = task
        self.job = job
        self.keep_prompt = keep_prompt
        self.calls = CallLog()
        self.prompts: dict[str, str] = {}
        self._voices: list[Voice] = []
        timeout_s = stage.play.simulation_timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.fatal: str | None = None
        """Set when a model said that it will refuse every further call: the run had better stop."""

    async def run(self) -> Record:
        """Hold the conversation and score it; only a cancellation comes out as an exception."""
        key = self.job.key
        token = current_scope.set(Scope(key.domain, key.task_id, key.trial, self.job.thread))
        begun, started = time.perf_counter(), datetime.now()
        try:
            record = await self._play()
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
            for voice in self._voices:
                voice.model.end_session(voice.session)
            current_scope.reset(token)

    async def _play(self) -> Record:
        parties = conversation = None
        outcome = _Outcome(TerminationReason.infrastructure_error)
        try:
            environment = self.stage.domain.environment(self.task, solo=self.stage.solo)
            parties = self._parties()
            conversation = Conversation(parties.agent, parties.user, environment, self.stage.play.rules, self.calls)
            async with asyncio.timeout(self.stage.play.simulation_timeout_s):
                outcome.ending = await conversation.run(parties.history, self.stage.greeting)
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
            return TerminationReason.deadline, f"longer than {self.stage.play.simulation_timeout_s} s"
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
            attempt=self.stage.play.attempt,
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
        if not (in_basis or self.stage.play.judge_always):
            return None
        if not criteria.nl_assertions:
            return []
        model = self.stage.play.cast.judge
        if model is None:
            raise JudgeError("the task needs a judge and there is none (judge=none)")
        system, question = prompts.judge_messages(prompts.judge_transcript(messages), criteria.nl_assertions)
        voice = self._voice("judge", model, ChatMessage("system", system), None)
        return await judge(voice, question, criteria.nl_assertions)

    def _parties(self) -> _Parties:
        stage, play, task = self.stage, self.stage.play, self.task
        initial = task.initial_state
        history = [message.model_copy(deep=True) for message in (initial and initial.message_history) or ()]
        before, last = history[:-1], history[-1:]

        agent_voice = self._voice("agent", play.cast.agent, stage.agent_prompt(task), stage.agent_tools)
        agent_history = agent_view(before) + [own_turn(turn) for turn in last if turn.role == "assistant"]
        if not history and not stage.solo:
            agent_history = [ChatMessage("assistant", stage.greeting)]
        agent_voice.history = list(agent_history)
        consultation = None
        if play.cast.experts:
            expert_prompt = stage.expert_prompt(task)
            experts = {
                name: self._voice(name, model, expert_prompt, stage.expert_tools)
                for name, model in play.cast.experts.items()
            }
            consultation = Consultation(experts, history=list(agent_history))
        agent = Agent(
            agent_voice,
            consultation=consultation,
            strip_message_tags=play.strip_message_tags,
            solo_stop=prompts.solo_stop() if stage.solo else None,
        )
        user = None
        if not stage.solo:
            assert play.cast.user is not None, "a run that is not solo has a user model"
            user_voice = self._voice("user", play.cast.user, stage.user_prompt(task), stage.user_tools)
            user_voice.history = user_view(before) + [own_turn(turn) for turn in last if turn.role == "user"]
            user = User(user_voice)
        return _Parties(agent, user, history)

    def _voice(self, role: str, model: ChatModel, system: ChatMessage, tools: ToolSet | None) -> Voice:
        key = self.job.key
        text = system.content or ""
        digest = prompt_digest(text)
        self.prompts[role] = digest
        self.keep_prompt(digest, text)
        voice = Voice(
            role=role,
            model=model,
            session=f"{self.stage.play.run_id}/{key.domain}/{quote(key.task_id, safe='')}/{key.trial}/{role}",
            system=system,
            tools=tools,
            seed=self.job.seed,
            calls=self.calls,
            deadline=self.deadline,
            tool_choice="required" if self.stage.solo and role != "judge" else None,
        )
        self._voices.append(voice)
        return voice


def _dump(message: Message, turn_idx: int) -> dict[str, Any]:
    """A message in the benchmark's schema."""
    fields: dict[str, Any] = message.model_dump()
    fields["turn_idx"] = turn_idx
    return fields
