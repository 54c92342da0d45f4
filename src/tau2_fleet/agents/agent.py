"""What an agent is: made for one simulation from an `AgentContext`, then asked for one message after another.

Scaffolds live in this folder, one a file, or anywhere on the import path; `conf/agent/scaffold/` names them by
`_target_`. `simulation` makes and asks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolMessage, UserMessage
    from tau2_fleet.llm.session import ModelSession
    from tau2_fleet.llm.types import ChatMessage

AgentInput: TypeAlias = "UserMessage | list[ToolMessage]"
"""A text of the customer, or the results of the agent's last tool calls in their order."""


class Agent(Protocol):
    """The agent's side of one conversation; it keeps its own history.

    One that holds more than memory can have `async def close(self)`, which is called when the simulation is over, and
    `def conversation_over(self, ending: str)`, which is called before the simulation is scored. A class whose agents
    may ask models of which nothing is known here says `may_ask_elsewhere = True`.
    """

    @property
    def name(self) -> str:
        """What results call it (`implementation`)."""
        ...

    async def next_message(self, incoming: AgentInput) -> AssistantMessage:
        """The agent's answer: a text to the customer, or tool calls, of which `done` ends solo mode.

        `incoming` is an empty list where the agent opens the conversation (solo mode).

        Raises:
            ModelError: the model could not be asked: not the agent's fault, and run again by a resumed run.
            Exception: anything else ends the simulation as `agent_error`; run.log has the traceback.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the agents of one run can share something from.

    A class whose agents do has `open_run(run, **options)`, a class method that gives an asynchronous context manager:
    entered before the first simulation and left after the last, it yields what is called with `context=` for each.
    """

    run_dir: Path
    model_served: bool = True
    """Whether there is a model under test to be asked (not with `server=absent`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContext:
    """What an agent is made from, beside its options."""

    domain: str
    task_id: str
    trial: int
    seed: int
    """The trial's seed; `model` sends it with every request."""
    mode: str
    """`llm`, `solo` or `ground_truth`, as `agent.mode`."""
    policy: str
    """The domain's policy, as the agent is to read it."""
    tools: Sequence[dict[str, Any]]
    """OpenAI schemas of what it may call; `model` offers them."""
    model: ModelSession
    """The model under test; `model.system` is the benchmark's prompt with the policy, and can be set to another."""
    history: Sequence[ChatMessage]
    """The conversation before the first `incoming`, as a model reads it: the greeting, or the task's own beginning."""
    messages: Sequence[Message]
    """The same as the record has it."""
    experts: Mapping[str, ModelSession] = field(default_factory=dict)
    """The experts by the name under which `call_expert` offers them."""
    strip_message_tags: bool = False
    """Whether `<message>` tags are taken off replies."""
    task: Task
    """The whole task, with the gold actions that no agent may look at but one that shows what can be reached."""
