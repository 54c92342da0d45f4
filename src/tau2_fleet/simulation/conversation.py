"""One conversation between agent, user and environment, step by step, by the benchmark's rules.

`simulate.py` builds the parties and calls `Conversation.run`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from tau2_fleet.benchmark.package import AssistantMessage, UserMessage
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.session import RoleError
from tau2_fleet.simulation.party import AGENT, USER, ask_party
from tau2_fleet.telemetry.events import StepComplete, ToolCallDone, emit

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import Agent
    from tau2_fleet.benchmark.package import Message, ToolCall, ToolMessage
    from tau2_fleet.users.user import User

log = logging.getLogger(__name__)


class Role(StrEnum):
    """Who sends or receives a message."""

    AGENT = "agent"
    USER = "user"
    ENV = "env"


class EnvironmentSide(Protocol):
    async def respond(self, call: ToolCall) -> ToolMessage: ...
    def sync(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """When a conversation is cut off."""

    max_steps: int = 200
    max_errors: int = 10
    validate_communication: bool = False
    """A message with both text and tool calls ends the simulation."""
    stop_tokens: tuple[str, ...] = ()
    """Any of these in a user's text ends the conversation."""
    solo_stop: str = ""
    """This in a solo agent's text ends it as it should; any other text is an error."""
    solo_tool: str = "done"
    """A call of this stands for such a text."""


class Conversation:
    """The state of a conversation: the trajectory so far, and who owes whom the next message."""

    def __init__(
        self,
        agent: Agent,
        user: User | None,
        environment: EnvironmentSide,
        rules: Rules,
        calls: CallLog,
    ) -> None:
        """`user` is None in solo mode: the agent works on a ticket and talks to tools only."""
        self.agent = agent
        self.user = user
        self.environment = environment
        self.rules = rules
        self.calls = calls
        self.trajectory: list[Message] = []
        self.steps = 0
        self.errors = 0
        self.ending: TerminationReason | None = None
        self.problem: str | None = None
        """Why it ended as the agent's or the user's error."""
        self.sender = Role.AGENT
        self.receiver = Role.USER
        self.pending: Sequence[Message] = ()
        """The message, or the tool results together, that the next step delivers."""

    @property
    def solo(self) -> bool:
        return self.user is None

    async def run(self, history: Sequence[Message], greeting: str) -> TerminationReason:
        """Hold the conversation to its end; the trajectory is kept up to date at every moment.

        Raises:
            ModelError, ToolDeadline: the conversation could not be held; what there is of it
                stands in `trajectory`.
        """
        try:
            await self._open(history, greeting)
            while self.ending is None:
                await self._step()
                if self.receiver is not Role.ENV:
                    self._apply_limits()
        except RoleError as error:
            self.ending, self.problem = self._error_of(self.receiver), str(error)
        return self.ending

    async def _open(self, history: Sequence[Message], greeting: str) -> None:
        if history:
            self._continue(history)
        elif not self.solo:
            self._send(AssistantMessage(role="assistant", content=greeting, cost=0.0))
        else:
            self.sender, self.receiver = Role.ENV, Role.AGENT
            await self._let_agent_speak([])
        self._check_communication()
        self.environment.sync()

    def _continue(self, history: Sequence[Message]) -> None:
        """Go on from a task's message history: its last message is on its way."""
        begun = datetime.now() - timedelta(seconds=len(history))
        for index, message in enumerate(history):
            message.timestamp = (begun + timedelta(seconds=index)).isoformat()
        *before, last = history
        self.trajectory.extend(before)
        if last.role == "tool":
            self.trajectory.append(last)
            self.pending = [last]
            self.sender = Role.ENV
            self.receiver = Role.AGENT if last.requestor == "assistant" else Role.USER
        else:
            self._send(last)

    def _send_reply(self, message: AssistantMessage | UserMessage) -> None:
        """A message that a model wrote; it carries what was found in the replies that led to it."""
        found = self.calls.take_turn_conditions()
        if found:
            message.raw_data = {**(message.raw_data or {}), "conditions": found}
        self._send(message)

    def _send(self, message: AssistantMessage | UserMessage) -> None:
        """Put a party's message on its way, and see whether it ends the conversation."""
        self.trajectory.append(message)
        self.pending = [message]
        if message.role == "user":
            self.sender, other = Role.USER, Role.AGENT
        else:
            self.sender, other = Role.AGENT, Role.USER
        self.receiver = Role.ENV if message.is_tool_call() else other
        if message.is_tool_call():
            return
        text = message.content or ""
        if self.sender is Role.USER and any(token in text for token in self.rules.stop_tokens):
            self.ending = TerminationReason.user_stop
        elif self.sender is Role.AGENT and self.solo:
            if self.rules.solo_stop in text:
                self.ending = TerminationReason.agent_stop
            else:
                self.ending, self.problem = AGENT.error, "a text where only tool calls are allowed"

    async def _step(self) -> None:
        """Deliver the pending message; what comes back is pending next."""
        begun = time.perf_counter()
        sender, receiver = self.sender, self.receiver
        self.calls.step = self.steps
        if receiver is Role.ENV:
            await self._run_tools()
        elif receiver is Role.USER and self.user is not None:
            self._send_reply(await ask_party(self.user, self._incoming(), USER))
        else:
            await self._let_agent_speak(self._incoming())
        self._check_communication()
        self.steps += 1
        self.environment.sync()
        duration_ms = (time.perf_counter() - begun) * 1000
        emit(StepComplete(total_duration_ms=duration_ms, from_role=sender, to_role=receiver, step=self.steps - 1))

    def _incoming(self) -> Any:
        """What is pending, as the parties take it: a message, or a list of tool results."""
        return list(self.pending) if self.sender is Role.ENV else self.pending[0]

    async def _let_agent_speak(self, incoming: Any) -> None:
        turn = await ask_party(self.agent, incoming, AGENT)
        self._send_reply(self._as_stop(turn) if self.solo else turn)

    def _as_stop(self, turn: AssistantMessage) -> AssistantMessage:
        """A solo agent's last message, where it calls the tool that ends its work; calls beside that are dropped."""
        calls = turn.tool_calls or []
        if all(call.name != self.rules.solo_tool for call in calls):
            return turn
        about = dict(turn.raw_data or {})
        beside = [call.name for call in calls if call.name != self.rules.solo_tool]
        about["dropped_calls"] = [*about.get("dropped_calls", []), *beside]
        return turn.model_copy(update={"content": self.rules.solo_stop, "tool_calls": None, "raw_data": about})

    async def _run_tools(self) -> None:
        results = []
        for call in self.pending[0].tool_calls:
            begun = time.perf_counter()
            result = await self.environment.respond(call)
            duration_ms = (time.perf_counter() - begun) * 1000
            self.errors += result.error
            results.append(result)
            self.trajectory.append(result)
            log.debug("%s called %s(%s): %s", call.requestor, call.name, call.arguments, result.content)
            emit(
                ToolCallDone(
                    function=call.name,
                    requestor=call.requestor,
                    duration_ms=duration_ms,
                    error=result.error,
                    step=self.steps,
                )
            )
        self.pending = results
        self.sender, self.receiver = Role.ENV, self.sender

    def _apply_limits(self) -> None:
        """Both limits overwrite a stop of the same step, and too many errors win over too many steps."""
        if self.steps >= self.rules.max_steps:
            self.ending = TerminationReason.max_steps
        if self.errors >= self.rules.max_errors:
            self.ending = TerminationReason.too_many_errors

    def _check_communication(self) -> None:
        if not self.rules.validate_communication or self.sender is Role.ENV:
            return
        message = self.pending[0]
        if message.is_tool_call() == message.has_text_content():
            self.ending = self._error_of(self.sender)
            self.problem = "a message with both text and tool calls, or with neither"

    @staticmethod
    def _error_of(role: Role) -> TerminationReason:
        return (USER if role is Role.USER else AGENT).error
