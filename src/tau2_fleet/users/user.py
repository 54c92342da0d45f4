"""What a user is: the customer of one simulation, made from a `UserContext`, then asked for one message after another.

Scaffolds live in this folder, one a file, or anywhere on the import path; `conf/user_llm/scaffold/` names them by
`_target_`. `simulation` makes and asks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolMessage, UserMessage
    from tau2_fleet.llm.session import ModelSession
    from tau2_fleet.llm.types import ChatMessage

UserInput: TypeAlias = "AssistantMessage | list[ToolMessage]"
"""A text of the agent, or the results of the customer's own last tool calls in their order."""


class User(Protocol):
    """The customer's side of one conversation; it keeps its own history.

    One that holds more than memory can have `async def close(self)`, which is called when the simulation is over.
    """

    @property
    def name(self) -> str:
        """What results call it (`implementation`)."""
        ...

    async def next_message(self, incoming: UserInput) -> UserMessage:
        """The customer's answer: a text, which ends the conversation where it holds a stop token, or tool calls.

        Raises:
            ModelError: the model could not be asked: not the customer's fault, and run again by a resumed run.
            Exception: anything else ends the simulation as `user_error`; run.log has the traceback.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    """What a user is made from, beside its options."""

    domain: str
    task_id: str
    trial: int
    seed: int
    """The trial's seed; `model` sends it with every request."""
    scenario: str
    """What the customer wants and knows, as the benchmark words it."""
    tools: Sequence[dict[str, Any]]
    """OpenAI schemas of what the customer may call; empty in most domains."""
    stop_tokens: Sequence[str]
    """Any of these in a text ends the conversation."""
    model: ModelSession
    """Who plays the customer; `model.system` is the benchmark's prompt with the scenario, and can be set to another."""
    history: Sequence[ChatMessage]
    """The conversation before the first `incoming`, as the customer's model reads it."""
    messages: Sequence[Message]
    """The same as the record has it."""
    task: Task
    """The whole task."""
