"""A conversation driver of the tests' own: agent and user asked in turn, tools run by the benchmark's environment.

It sends both sides just what the runner would, and scores the outcome.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, Task, ToolCall, ToolMessage, UserMessage
from tau2_fleet.evaluation.reward import evaluate
from tau2_fleet.simserver.gold_policy import next_turn
from tau2_fleet.simserver.policy_words import Situation, parse_session
from tau2_fleet.simserver.scripts import Scripts

Ask = Callable[[str, list[dict[str, Any]], list[dict[str, Any]]], dict[str, Any]]
"""Session id, messages and tools -> the assistant message of the answer."""

DOMAINS = ("mock", "retail", "airline", "telecom")

GREETING = "Hi! How can I help you today?"


@cache
def domain_of(name: str) -> Domain:
    return load_domain(name)


def tasks_of(domain: str) -> list[Task]:
    return domain_of(domain).tasks()


@dataclass
class Conversation:
    """One simulation of `task`; `run` plays it to the user's stop and knows its reward afterwards."""

    domain: str
    task: Task
    ask: Ask
    hidden_tools: tuple[str, ...] = ()
    trial: int = 0
    run_id: str = "abcdef01"
    max_turns: int = 150
    messages: list[Any] = field(default_factory=list)
    agent_history: list[dict[str, Any]] = field(default_factory=list)
    user_history: list[dict[str, Any]] = field(default_factory=list)
    ended_by: str = "max_steps"
    reward: float | None = None

    def session(self, role: str) -> str:
        return f"{self.run_id}/{self.domain}/{quote(self.task.id, safe='')}/{self.trial}/{role}"

    def run(self) -> Conversation:
        asyncio.run(self.play())
        return self

    async def play(self) -> None:
        domain = domain_of(self.domain)
        environment = domain.environment(self.task)
        tools = {
            "agent": [tool for tool in domain.agent_tools if tool["function"]["name"] not in self.hidden_tools],
            "user": domain.user_tools,
        }
        state = self.task.initial_state
        history = list(state.message_history or ()) if state else []
        for message in history or [AssistantMessage(role="assistant", content=GREETING)]:
            self.remember(message)
        turn = "user" if isinstance(self.messages[-1], AssistantMessage) else "agent"
        for _ in range(self.max_turns):
            seen = self.agent_history if turn == "agent" else self.user_history
            system = {"role": "system", "content": f"You are the {turn}."}
            message = self.as_message(self.ask(self.session(turn), [system, *seen], tools[turn]), turn)
            self.remember(message)
            if message.tool_calls:
                for call in message.tool_calls:
                    self.remember(await environment.respond(call))
                environment.sync()
            elif turn == "user" and "###STOP###" in message.content:
                self.ended_by = "user_stop"
                break
            else:
                turn = "user" if turn == "agent" else "agent"
        self.reward = evaluate(self.task, self.messages, self.ended_by, await environment.final_state()).reward

    def as_message(self, reply: dict[str, Any], turn: str) -> AssistantMessage | UserMessage:
        requestor = "assistant" if turn == "agent" else "user"
        calls = [
            ToolCall(
                id=call["id"],
                name=call["function"]["name"],
                arguments=arguments_of(call["function"]["arguments"]),
                requestor=requestor,
            )
            for call in reply.get("tool_calls") or ()
        ]
        kind = AssistantMessage if turn == "agent" else UserMessage
        return kind(role=requestor, content=reply["content"], tool_calls=calls or None)

    def remember(self, message: AssistantMessage | UserMessage | ToolMessage) -> None:
        self.messages.append(message)
        if isinstance(message, ToolMessage):
            result = {"role": "tool", "tool_call_id": message.id, "content": message.content}
            (self.agent_history if message.requestor == "assistant" else self.user_history).append(result)
            return
        by_agent = isinstance(message, AssistantMessage)
        own, other = (self.agent_history, self.user_history) if by_agent else (self.user_history, self.agent_history)
        encoded: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.tool_calls:
            encoded["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for call in message.tool_calls
            ]
        else:
            other.append({"role": "user", "content": message.content})
        own.append(encoded)


def arguments_of(text: str) -> dict[str, Any]:
    """Arguments as the runner understands them: what is not a JSON object goes to the tool as text."""
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments_not_a_json_object": text}


class WithoutEnvironment(Conversation):
    """A conversation in which every tool is offered to its side and answers the same."""

    def run(self) -> WithoutEnvironment:
        actions = (self.task.evaluation_criteria.actions if self.task.evaluation_criteria else None) or ()
        tools = {
            side: [
                {"function": {"name": name}}
                for name in {action.name for action in actions if action.requestor == requestor}
                if name not in self.hidden_tools
            ]
            for side, requestor in (("agent", "assistant"), ("user", "user"))
        }
        history: dict[str, list[dict[str, Any]]] = {"agent": self.agent_history, "user": self.user_history}
        history["agent"].append({"role": "assistant", "content": "Hi!"})
        history["user"].append({"role": "user", "content": "Hi!"})
        turn = "user"
        for _ in range(self.max_turns):
            seen = self.seen(history[turn])
            reply = self.ask(self.session(turn), [{"role": "system", "content": "s"}, *seen], tools[turn])
            history[turn].append(reply)
            if reply["tool_calls"]:
                history[turn].extend(self.answers(reply))
                continue
            turn = "user" if turn == "agent" else "agent"
            if "###STOP###" in reply["content"]:
                self.ended_by = "user_stop"
                break
            history[turn].append({"role": "user", "content": reply["content"]})
        return self

    def seen(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return history

    def answers(self, reply: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in reply["tool_calls"]]

    def played(self) -> list[tuple[str, Any]]:
        """Calls of both sides in the order of their steps."""
        calls = [
            (int(call["id"].split("-")[1]), call["function"]["name"], json.loads(call["function"]["arguments"]))
            for history in (self.agent_history, self.user_history)
            for message in history
            for call in message.get("tool_calls") or ()
        ]
        return [(name, arguments) for _, name, arguments in sorted(calls, key=lambda call: call[0])]


def ask_policy(scripts: Scripts, **more: Any) -> Any:
    """An `Ask` of the conversation driver that goes straight to the policy."""

    def ask(session_id: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
        session = parse_session(session_id)
        assert session is not None
        turn = next_turn(
            Situation(
                session=session,
                role=session.role,
                script=scripts.get(session.domain, session.quoted_task_id),
                messages=messages,
                tools={tool["function"]["name"]: tool["function"] for tool in tools},
                **more,
            )
        )
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
        return {"role": "assistant", "content": turn.text, "tool_calls": calls}

    return ask
