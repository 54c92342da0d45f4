"""What `conf/agent`, `conf/judge` and `conf/experts` say; `tau2_fleet.config` makes the Hydra schema of them.

Plain dataclasses, like `tau2_fleet.llm.settings`: whoever builds a conversation reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.llm.settings import ModelSettings, PriceSettings

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

    model: Optional[str] = None
    """A local path or a hub id; null: discovered (`server=external`) or none needed (`server=simulated`)."""
    mode: AgentMode = AgentMode.llm
    temperature: Optional[float] = 1.0
    """null: not sent."""
    top_p: Optional[float] = None
    max_output_tokens: Optional[int] = 8000
    """null: not sent."""
    max_context_tokens: Optional[int] = 23000
    """Tokens of history, tools and answer together; null: what the server itself allows."""
    sends_seed: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further keys of the request body."""
    price: Optional[PriceSettings] = None
    """null: a fleet of one's own costs nothing."""
    strip_message_tags: bool = False
    """Whether `<message>` tags are taken off its replies (thinking always is)."""
    format_instruction: bool = False
    """Whether its prompt asks for think and `<message>` tags."""


@dataclass
class JudgeSettings(ModelSettings):
    """The model that grades natural-language assertions."""

    enabled: bool = True
    """False: no judge; a task whose reward needs one cannot be run."""
    always: bool = False
    """True: also grade the assertions that do not count for the reward."""


@dataclass
class ExpertSettings:
    """One expert: the model that answers, and what the agent is told of it."""

    llm: ModelSettings = field(default_factory=ModelSettings)
    fallback: Optional[ModelSettings] = None
    """The model to use in its place when the key that `llm` needs is not there; null: then the run cannot start."""
    strength: str = ""
    """What it is good at, as the agent reads it."""
    latency_s: float = 0.0
    """Typical seconds until an answer, as the agent reads it."""
    price: PriceSettings = field(default_factory=PriceSettings)
    """USD per million tokens, as the agent reads it; what a call costs is counted by `llm.price`."""


@dataclass
class ExpertsSettings:
    """The experts that the agent can call; none of the three: no tool `call_expert`."""

    expert_1: Optional[ExpertSettings] = None
    expert_2: Optional[ExpertSettings] = None
    expert_3: Optional[ExpertSettings] = None
    hide_transfer_tool: bool = True
    """With experts: whether `transfer_to_human_agents` is taken from the agent's tools (never from the experts')."""
    policy_edit: str = "off"
    """With experts: `off`, `own` (our paragraph for the human-transfer ones), or a YAML file of replacements."""

    def members(self) -> dict[str, ExpertSettings]:
        """The experts in use, by the name under which the agent calls them (`expert-1` ...)."""
        slots = {"expert-1": self.expert_1, "expert-2": self.expert_2, "expert-3": self.expert_3}
        return {name: expert for name, expert in slots.items() if expert is not None}
