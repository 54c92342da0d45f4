"""What all simulations of one domain share: tools and prompts, made and encoded once per run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from tau2_fleet.agents.expert_handoff import ExpertCard, call_expert_schema
from tau2_fleet.agents.policy_edit import edit_policy
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.package import AssistantMessage, Message
from tau2_fleet.errors import UserError
from tau2_fleet.llm.pause import Pause
from tau2_fleet.llm.types import ChatMessage, ChatModel, ToolSet
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.scaffolds import Scaffolds
from tau2_fleet.simulation.settings import AgentMode

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task

    from tau2_fleet.benchmark.domain import Domain

TRANSFER_TOOL = "transfer_to_human_agents"

FORMAT_INSTRUCTION = (
    "Think inside <think></think> first. Then write what the customer should read inside <message></message>, "
    "or make your tool calls."
)


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """How every simulation of a run is played."""

    run_id: str
    """Eight characters that begin every session id of the run."""
    clients: Roles[ChatModel]
    rules: Rules = field(default_factory=Rules)
    mode: AgentMode = AgentMode.llm
    scaffolds: Scaffolds = field(default_factory=Scaffolds)
    agent_instructions: str | None = None
    """In place of the benchmark's instructions to the agent."""
    user_guidelines: str | None = None
    """In place of the benchmark's guidelines for the simulated user."""
    expert_cards: Sequence[ExpertCard] = ()
    hide_transfer_tool: bool = False
    policy_edit: str = "off"
    strip_message_tags: bool = False
    format_instruction: bool = False
    judge_always: bool = False
    simulation_timeout_s: float | None = None
    attempt: int = 0
    pause: Pause = field(default_factory=Pause)
    """That of the run's models: while it is on, no simulation's time passes."""


class DomainContext:
    """One domain, ready for its simulations."""

    def __init__(self, domain: Domain, settings: SimulationSettings) -> None:
        self.domain = domain
        self.settings = settings
        self.solo = settings.mode is AgentMode.solo
        if self.solo and not domain.supports_solo:
            raise UserError(f"agent.mode=solo: the domain {domain.name} has no solo mode; mock and telecom have")
        own_tools = list(domain.agent_tools)
        if self.solo:
            own_tools += [*domain.user_tools, prompts.done_tool_schema()]
        self.expert_tools = ToolSet.of(own_tools)
        self.agent_tools = ToolSet.of(self._offered(own_tools))
        self.user_tools = None if self.solo else ToolSet.of(domain.user_tools)
        self.policy: str = (domain.solo_policy if self.solo else None) or domain.policy
        self.agent_policy = self._edited(self.policy)
        self.greeting = prompts.greeting()
        self.opening: Sequence[Message] = [AssistantMessage(role="assistant", content=self.greeting, cost=0.0)]
        """The conversation before the user's first turn, where the task brings none."""
        self.opening_view = [ChatMessage("assistant", self.greeting)]
        """The same as the agent's model reads it."""
        self._shared: dict[str, ChatMessage] = {}

    def _offered(self, own_tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The agent's tools: with experts it gains `call_expert`, and may lose the transfer tool."""
        if not self.settings.clients.experts:
            return own_tools
        hidden = {TRANSFER_TOOL} if self.settings.hide_transfer_tool else set()
        kept = [schema for schema in own_tools if schema["function"]["name"] not in hidden]
        return [*kept, call_expert_schema(self.settings.expert_cards)]

    def agent_prompt(self, task: Task) -> ChatMessage:
        """The agent's system message, with the policy as edited for runs with experts."""
        text = self._agent_text(task, self.agent_policy_of(task), self.settings.agent_instructions)
        return self._system(f"{text}\n\n{FORMAT_INSTRUCTION}" if self.settings.format_instruction else text)

    def expert_prompt(self, task: Task) -> ChatMessage:
        """An expert's system message: the benchmark's own, with the unedited policy."""
        return self._system(self._agent_text(task, self.policy_of(task)))

    def policy_of(self, task: Task) -> str:
        """The policy of a task: the domain's, but where each task has its own."""
        return (None if self.solo else self.domain.policy_of(task)) or self.policy

    def agent_policy_of(self, task: Task) -> str:
        """The same as edited for runs with experts."""
        own = self.policy_of(task)
        return self.agent_policy if own is self.policy else self._edited(own)

    def _edited(self, policy: str) -> str:
        return edit_policy(policy, self.settings.policy_edit if self.settings.clients.experts else "off")

    def user_prompt(self, scenario: str) -> ChatMessage:
        """The user simulator's system message."""
        text = prompts.user_system_prompt(scenario, self.user_tools is not None, self._user_guidelines)
        return ChatMessage("system", text)

    @cached_property
    def _user_guidelines(self) -> str:
        """Read once: the same for all simulations."""
        return self.settings.user_guidelines or self.domain.user_guidelines

    def user_tools_of(self, task: Task) -> ToolSet | None:
        """What the simulated user of a task is offered."""
        if self.user_tools is None:
            return None
        offered = self.domain.user_tools_of(task)
        if len(offered) == len(self.user_tools.schemas):
            return self.user_tools
        return ToolSet.of(offered)

    def _agent_text(self, task: Task, policy: str, instructions: str | None = None) -> str:
        if self.settings.mode is AgentMode.ground_truth:
            return prompts.ground_truth_system_prompt(policy, task, instructions)
        if self.solo:
            return prompts.solo_system_prompt(policy, task, instructions)
        return prompts.agent_system_prompt(policy, instructions)

    def _system(self, text: str) -> ChatMessage:
        """One object per text, so that a prompt shared by all tasks is encoded once."""
        return self._shared.setdefault(text, ChatMessage("system", text))


def playable(task: Task, mode: AgentMode) -> bool:
    """Whether a task can be played in this mode; the benchmark's agents refuse the others.

    Ground truth needs expected actions. Solo needs a ticket and expected actions, or an initial
    state whose message history holds only the agent's tool traffic.
    """
    has_actions = bool(task.evaluation_criteria and task.evaluation_criteria.actions)
    if mode is AgentMode.ground_truth:
        return has_actions
    if mode is AgentMode.solo:
        if task.initial_state is None:
            return task.ticket is not None and has_actions
        return all(
            message.role == "tool" or (message.role == "assistant" and message.is_tool_call())
            for message in task.initial_state.message_history or ()
        )
    return True


@lru_cache(maxsize=64)
def prompt_digest(text: str) -> str:
    """Twelve hexadecimal digits that stand for a prompt."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
