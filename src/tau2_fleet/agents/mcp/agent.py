"""An agent that is somebody else's program: `agent/scaffold=mcp`.

`McpAgent` turns the conversation's questions for the next message into answers to its client, and the client's calls
into messages. `run.py` has what all agents of a run share.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from tau2_fleet.agents.expert_handoff import CALL_EXPERT, ExpertHandoff
from tau2_fleet.agents.mcp.model_proxy import ModelProxy
from tau2_fleet.agents.mcp.options import ClientOptions
from tau2_fleet.agents.mcp.seat import SEND_MESSAGE, Action, ActionResult, Seat
from tau2_fleet.agents.mcp.tools import SeatTools
from tau2_fleet.agents.model_line import ModelLine
from tau2_fleet.llm.message_views import heard, own_turn, parse_call, tool_call
from tau2_fleet.llm.session import RoleError, TurnCost
from tau2_fleet.llm.types import ChatMessage, ModelError, Reply, ToolCallText
from tau2_fleet.record.line import UNSEEN_CALLS

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import AgentContext, AgentInput, RunContext
    from tau2_fleet.agents.mcp.clients import Client
    from tau2_fleet.agents.mcp.run import McpRun
    from tau2_fleet.benchmark.package import AssistantMessage


_LINGER_S = 10.0
"""In which a client that came by itself, and goes on after the end, is told so."""


class McpAgent:
    """The agent of one simulation, played by a client."""

    may_ask_elsewhere = True

    def __init__(
        self,
        context: AgentContext,
        command: str | Sequence[str] | None = None,
        wait: bool = False,
        name: str = "mcp",
        turn_limit_s: float | None = 600,
        time_limit_s: float | None = None,
        keys: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        run: McpRun | None = None,
    ) -> None:
        """For the options see `conf/agent/scaffold/mcp.yaml`.

        Args:
            run: what lets clients in; None: nobody can play, as before a run.

        Raises:
            UserError: an option cannot be, or the domain has a tool that is named like one of ours.
        """
        self.options = ClientOptions.of(name, command, wait, turn_limit_s, time_limit_s, keys, environment or {})
        self.name = self.options.name
        self.context = context
        self.seat = Seat()
        self.line = ModelLine(context.model)
        self.model = ModelProxy(self.line, self.seat.leave, served=run is None or run.model_served)
        system = context.model.system
        self.tools = SeatTools(
            self.seat,
            context.tools,
            context.policy,
            (system and system.content) or "",
            solo=context.mode == "solo",
            report=self.model.report,
        )
        self._handoff = ExpertHandoff(context.experts) if context.experts else None
        self._remember(*context.history)
        self._expert_turn: str | None = None
        """What an expert did in the client's place, in the turn that is being answered."""
        self._until: float | None = None
        self._client: Client | None = None
        self._failed = False
        self._run = run
        self._place = None if run is None else run.admit(self)

    @classmethod
    def open_run(cls, run: RunContext, **options: Any) -> AbstractAsyncContextManager[McpRun]:
        """As `RunContext` says."""
        from tau2_fleet.agents.mcp.run import open_run

        return open_run(cls, run, options)

    async def next_message(self, incoming: AgentInput) -> AssistantMessage:
        """What the client does next.

        Raises:
            ModelError: its model could not be asked, and it did not get over that.
            RoleError: it did nothing in time, or has ended.
        """
        self._hear(incoming)
        await self._begin()
        failures = 0
        while True:
            action = await self._next_action()
            if self._handoff is None or action.name != CALL_EXPERT:
                return self._turn(action)
            reply = await self._handoff.hand_over(ToolCallText("expert", CALL_EXPERT, json.dumps(action.arguments)))
            if isinstance(reply, Reply):
                return self._turn_of_expert(reply)
            failures += 1
            if failures == self._handoff.max_failures:
                raise RoleError(f"the agent's last {failures} expert calls brought nothing: {reply}")
            self.seat.answer(ActionResult(reply, refused=True))

    def conversation_over(self, ending: str) -> None:
        """The client is told."""
        self.seat.end(f"The conversation is over ({ending}).")

    async def close(self) -> None:
        """End the client, and close its addresses."""
        self.conversation_over("ended")
        if self._run is None or self._place is None:
            return
        try:
            if self._client is not None:
                await self._run.clients.end(self._client, failed=self._failed)
        finally:
            self._run.door.shut(self._place, _LINGER_S if self._client is None else 0.0)

    async def _begin(self) -> None:
        """The client may act, and is started where that is our task."""
        if self.seat.begun:
            return
        self.seat.begin()
        if self.options.time_limit_s is not None:
            self._until = time.monotonic() + self.options.time_limit_s
        if self._run is None or self._place is None:
            raise RuntimeError("nobody can take the agent's seat: open_run was not called")
        if self.options.command:
            self._client = await self._run.start(self, self._place)

    async def _next_action(self) -> Action:
        while True:
            try:
                async with asyncio.timeout(self._patience_s()) as clock:
                    action = await self.seat.next_action()
                break
            except TimeoutError:
                if not clock.expired():
                    raise
                if not self.line.asking:  # else it waits for the model under test, whose limits are others
                    raise self._failure(self._overdue()) from None
        if action is None:
            raise self._failure(self.seat.left or "the client is gone")
        return action

    def _patience_s(self) -> float | None:
        """How long its next action may take."""
        limits = [self.options.turn_limit_s, None if self._until is None else self._until - time.monotonic()]
        least = 1.0 if self.line.asking else 0.0
        return min((max(least, found) for found in limits if found is not None), default=None)

    def _overdue(self) -> str:
        if self._until is not None and time.monotonic() >= self._until:
            return f"the client took longer than {self.options.time_limit_s:g} s"
        return f"the client did nothing for {self.options.turn_limit_s:g} s"

    def client_ended(self) -> None:
        """Its process is no more."""
        status = "it ended" if self._client is None else self._client.status
        self.seat.leave(f"the client is gone before the conversation was over: {status}")

    def _failure(self, why: str) -> Exception:
        """What a client that does no more comes to; where its model has failed it, that is not its fault."""
        self._failed = True
        somebody = self._client is not None or (self._place is not None and self._place.connections)
        if somebody and self.line.take_cost() is None:
            self.context.model.calls.unseen += 1
        if isinstance(self.line.failure, ModelError):
            return self.line.failure
        words = None if self._client is None else self._client.last_words
        if words is None:
            return RoleError(f"{self.name}: {why}")
        if self._place is not None:
            words = words.replace(self._place.token, "[token]")
        printed = f"the last that it printed:\n{words}" if words else "it printed nothing"
        return RoleError(f"{self.name}: {why}; {printed}")

    def _hear(self, incoming: AgentInput) -> None:
        """Take in what came of the last turn, and tell the client."""
        self._remember(*heard(incoming))
        several = incoming if isinstance(incoming, list) else [incoming]
        texts = [message.content or "" for message in several]
        failed = isinstance(incoming, list) and len(incoming) == 1 and incoming[0].error
        told, self._expert_turn = self._expert_turn, None
        if told is not None:
            texts.insert(0, told)
        self.seat.answer(ActionResult("\n".join(texts), refused=bool(failed)))

    def _turn(self, action: Action) -> AssistantMessage:
        """The client's action as a message."""
        from tau2_fleet.benchmark.package import AssistantMessage

        about: dict[str, Any] = {"author": self.context.model.role}
        if action.name == SEND_MESSAGE and self.context.mode != "solo":
            said: dict[str, Any] = {"content": action.arguments["message"]}
        else:
            said = {"tool_calls": [tool_call(action.name, json.dumps(action.arguments))]}
        return self._spoken(AssistantMessage(role="assistant", raw_data=about, **said), self.line.take_cost())

    def _turn_of_expert(self, reply: Reply) -> AssistantMessage:
        """An expert's turn, which becomes the agent's."""
        from tau2_fleet.benchmark.package import AssistantMessage

        assert self._handoff is not None
        expert = self._handoff.last_expert
        calls = [parse_call(call, "assistant") for call in reply.tool_calls]
        self._expert_turn = (
            f"{expert} took this turn and called {', '.join(call.name for call in calls)}. What came of it:"
            if calls
            else f"{expert} took this turn and said to the customer: {reply.text}\nThe customer answered:"
        )
        about: dict[str, Any] = {"author": expert, "called_by": self.context.model.role}
        if reply.thinking:
            about["thinking"] = reply.thinking
        turn = AssistantMessage(role="assistant", content=reply.text, tool_calls=calls or None, raw_data=about)
        cost = self.line.take_cost()
        if cost is not None:
            cost.add(reply)
        return self._spoken(turn, cost)

    def _spoken(self, turn: AssistantMessage, cost: TurnCost | None) -> AssistantMessage:
        """The turn with what it cost: where nobody knows, it says so."""
        if cost is None:
            turn.raw_data = {**(turn.raw_data or {}), UNSEEN_CALLS: True}
        else:
            turn.cost, turn.usage = cost.cost_usd, cost.usage_dict()
        self._remember(own_turn(turn))
        return turn

    def _remember(self, *messages: ChatMessage) -> None:
        self.seat.heard.extend(messages)
        if self._handoff is not None:
            self._handoff.heard(*messages)
