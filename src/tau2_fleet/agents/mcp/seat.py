"""The agent's seat in one conversation: what its client wants to do, in order, and what came of it.

`tools.py` brings the client's actions, `agent.py` takes them one at a time and answers. What a client may do and the
benchmark does not know is refused here, in words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.llm.types import ChatMessage

SEND_MESSAGE = "send_message"
READ_CONVERSATION = "read_conversation"

_MOST_WAITING = 32
"""Actions of one client that wait for their turn."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What a client is told of something it did."""

    text: str
    refused: bool = False
    """It did nothing: the conversation is where it was; or the tool failed."""
    over: bool = False
    """The conversation has ended."""


@dataclass(slots=True)
class Action:
    """A tool that the client calls, `send_message` among them."""

    name: str
    arguments: dict[str, Any]
    answered: asyncio.Future[ActionResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_message(self) -> bool:
        return self.name == SEND_MESSAGE


class Seat:
    """One side of one conversation; belongs to the event loop of its run."""

    def __init__(self) -> None:
        self.heard: list[ChatMessage] = []
        """The conversation so far, as the default agent's model would read it."""
        self.over: str | None = None
        """How the conversation ended; None: it goes on."""
        self.left: str | None = None
        """Why nobody will act any more, though the conversation goes on; None: somebody may."""
        self._open = asyncio.Event()
        self._waiting: deque[Action] = deque()
        self._taken: Action | None = None
        self._changed = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether it is the client's turn, or has been before."""
        return self._open.is_set()

    def begin(self) -> None:
        """The client may act: somebody has spoken to it, or it opens the conversation."""
        self._open.set()

    async def conversation(self) -> str:
        """What the agent knows of the conversation, as a text; waits for its beginning."""
        if not self.over:
            await self._open.wait()
        told = [part for message in self.heard for part in _told(message)]
        return "\n\n".join([*told, f"({self.over})"] if self.over else told)

    async def act(self, name: str, arguments: dict[str, Any]) -> ActionResult:
        """Do something in the agent's name, and wait for what comes of it."""
        if (problem := self._problem(name, arguments)) is not None:
            return problem
        action = Action(name, arguments)
        self._waiting.append(action)
        self._changed.set()
        return await action.answered

    def _problem(self, name: str, arguments: dict[str, Any]) -> ActionResult | None:
        """Why the benchmark has no place for this now."""
        if self.over:
            return ActionResult(f"{self.over} Nothing can be done in it any more.", refused=True, over=True)
        pending = [*([self._taken] if self._taken else ()), *self._waiting]
        why = None
        if not self.begun:
            why = f"The customer has not spoken yet: call {READ_CONVERSATION} first, which waits for that."
        elif any(action.is_message for action in pending):
            why = f"It is the customer's turn: wait for the answer to {SEND_MESSAGE} before anything else."
        elif len(pending) >= _MOST_WAITING:
            why = f"{len(pending)} calls wait for their answers: wait for those first."
        elif name == SEND_MESSAGE and pending:
            why = f"Tools are at work: a turn calls tools or speaks. Call {SEND_MESSAGE} when they have answered."
        elif name == SEND_MESSAGE and not _is_text(arguments.get("message")):
            why = f"{SEND_MESSAGE} takes one argument, message: the text for the customer, not empty."
        return None if why is None else ActionResult(why, refused=True)

    async def next_action(self) -> Action | None:
        """The client's next action, which is to be answered by `answer`; None: there will be none, see `left`."""
        while not self._waiting:
            if self.left is not None:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._taken = self._waiting.popleft()
        return self._taken

    def answer(self, answer: ActionResult) -> None:
        """What came of the action that was taken last; nothing where none was."""
        action, self._taken = self._taken, None
        if action is not None and not action.answered.done():
            action.answered.set_result(answer)

    def leave(self, why: str) -> None:
        """Nobody will act any more."""
        self.left = why
        self._changed.set()

    def end(self, how: str) -> None:
        """The conversation has ended; whoever waits for something in it is told so."""
        if self.over is not None:
            return
        self.over = how
        self.answer(ActionResult(how, over=True))
        for action in self._waiting:
            if not action.answered.done():
                action.answered.set_result(ActionResult(f"{how} This call was not made.", refused=True, over=True))
        self._waiting.clear()
        self._open.set()


def _told(message: ChatMessage) -> Iterator[str]:
    """A message for people and for models."""
    if message.role == "tool":
        yield f"result: {message.content}"
    elif message.content:
        yield f"{'customer' if message.role == 'user' else 'you'}: {message.content}"
    for call in message.tool_calls:
        yield f"you called {call.name}({call.arguments})"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
