"""What `conf/agent`, `conf/judge` and `conf/experts` say; `tau2_fleet.config` makes the Hydra schema of them.

Plain dataclasses, like `tau2_fleet.llm.settings`: whoever builds a conversation reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.key import COUNT, FROM_ZERO, Range, Resume, key
from tau2_fleet.llm.settings import ModelSettings, PriceSettings, ThinkingHistory

AGENT_SCAFFOLD = "tau2_fleet.agents.tool_calling.ToolCallingAgent"
USER_SCAFFOLD = "tau2_fleet.users.simulated_user.SimulatedUser"
"""Import paths of the code that plays agent and user where nothing else is said."""


class AgentMode(StrEnum):
    """How the agent takes part in a conversation."""

    llm = "llm"
    """It talks to the simulated user."""
    solo = "solo"
    """No user: it works from a ticket (mock and telecom)."""
    ground_truth = "ground_truth"
    """It talks to the user and is told the gold actions: an upper bound, not a result."""


@dataclass
class AgentSettings:
    """The model under test. Where it is served is the business of `server`."""

    model: Optional[str] = key(
        None,
        help="local path or hub id; not needed where server=external tells it or server=simulated plays it",
        path=True,
        shown="the variable CKPT_DIR",
    )
    mode: AgentMode = key(AgentMode.llm, help="llm, solo (mock, telecom) or ground_truth")
    temperature: Optional[float] = key(1.0, help="null: not sent", range=Range(0, 2))
    top_p: Optional[float] = key(None, help="null: not sent", range=Range(0, 1, above=True))
    max_output_tokens: Optional[int] = key(8000, help="tokens of an answer; null: not sent", range=COUNT)
    max_context_tokens: Optional[int] = key(
        23000, help="tokens of history, tools and answer together; null: what the server itself allows", range=COUNT
    )
    sends_seed: bool = key(True, help="whether its servers take a seed")
    extra_body: dict[str, Any] = key(
        factory=dict, help="more keys of the request body, added with a plus: +agent.extra_body.top_k=20"
    )
    thinking_history: ThinkingHistory = key(
        ThinkingHistory.none,
        help="what it thought is sent back: none, turn (while it calls tools) or all",
        added=True,
    )
    return_token_ids: bool = key(
        False,
        help="ask vLLM for token ids and log-probabilities, and keep them in the record",
        resume=Resume.may_differ,
        added=True,
    )
    price: Optional[PriceSettings] = key(
        None,
        help="USD per million tokens; null: a fleet of one's own costs nothing",
        packed=True,
        resume=Resume.may_differ,
    )
    scaffold: dict[str, Any] = key(
        factory=lambda: {"_target_": AGENT_SCAFFOLD},
        help="the agent's code, an import path, and its options; files of agent/scaffold/",
        added=True,
    )
    prompt_file: Optional[str] = key(
        None, help="a file with instructions in place of the benchmark's; the policy stays", path=True, added=True
    )
    strip_message_tags: bool = key(False, help="take <message> tags off its replies (thinking always is)")
    format_instruction: bool = key(False, help="ask in its prompt for think and <message> tags")


@dataclass
class UserSettings(ModelSettings):
    """The model that plays the customer, and by what code."""

    scaffold: dict[str, Any] = key(
        factory=lambda: {"_target_": USER_SCAFFOLD},
        help="the customer's code, an import path, and its options; files of user_llm/scaffold/",
        added=True,
    )
    prompt_file: Optional[str] = key(
        None, help="a file with guidelines in place of the benchmark's; the scenario stays", path=True, added=True
    )


@dataclass
class JudgeSettings(ModelSettings):
    """The model that grades natural-language assertions."""

    enabled: bool = key(True, help="false: no judge; a task whose reward needs one cannot be run")
    always: bool = key(False, help="also grade the assertions that do not count for the reward")


@dataclass
class ExpertSettings:
    """One expert: the model that answers, and what the agent is told of it."""

    llm: ModelSettings = key(factory=ModelSettings, help="the model that answers")
    fallback: Optional[ModelSettings] = key(
        None,
        help="the model in its place when the key that llm needs is not there; null: then the run cannot start",
        resume=Resume.may_differ,
    )
    strength: str = key("", help="what it is good at, as the agent reads it", shown="the group's")
    latency_s: Optional[float] = key(
        None,
        help="typical seconds until an answer, as the agent reads it; null: not yet measured",
        range=FROM_ZERO,
        shown="the group's",
    )
    price: PriceSettings = key(
        factory=PriceSettings,
        help="USD per million tokens, as the agent reads it; what is counted is llm.price",
        packed=True,
    )


@dataclass
class ExpertsSettings:
    """The experts that the agent can call; none of the three: no tool `call_expert`."""

    expert_1: Optional[ExpertSettings] = key(None, help="the first")
    expert_2: Optional[ExpertSettings] = key(None, help="the second")
    expert_3: Optional[ExpertSettings] = key(None, help="the third")
    hide_transfer_tool: bool = key(
        True, help="with experts: take transfer_to_human_agents from the agent's tools (never from the experts')"
    )
    policy_edit: str = key(
        "off",
        help="with experts: off, own (our words for the human transfer) or a YAML file of replacements",
        path=True,
    )

    def members(self) -> dict[str, ExpertSettings]:
        """The experts in use, by the name under which the agent calls them (`expert-1` ...)."""
        slots = {"expert-1": self.expert_1, "expert-2": self.expert_2, "expert-3": self.expert_3}
        return {name: expert for name, expert in slots.items() if expert is not None}
