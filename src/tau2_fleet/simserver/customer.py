"""The simulated user: opens, does the steps the agent asks for, says so, and hangs up after the closing text."""

from __future__ import annotations

from collections.abc import Sequence

from tau2_fleet.simserver.policy_words import (
    ASK,
    CLOSING,
    Message,
    ScriptedTurn,
    Situation,
    calls_of,
    equals,
    play,
    saying_done,
    step_number,
    text_of,
)
from tau2_fleet.simserver.scripts import Script, Step

GENERIC_TURNS = 3
"""Turns after which the user of an unknown task hangs up."""
PATIENCE = 8
"""Agent texts in succession that the scripted user does not understand before it hangs up."""

_STOP = "Thank you, that is all. ###STOP###"


def user(situation: Situation, script: Script) -> ScriptedTurn:
    messages = situation.messages
    last = messages[-1] if messages else {}
    if last.get("role") == "tool":
        return _after_own_call(situation, script, last)
    heard = text_of(last)
    if CLOSING in heard:
        return ScriptedTurn(_STOP)
    if (ask := ASK.search(heard)) is not None:
        return _do_step(situation, script, int(ask[1]))
    if _texts_not_understood(messages) >= PATIENCE:
        return ScriptedTurn(_STOP)
    if any(message.get("role") == "assistant" for message in messages) or script.has_history:
        return ScriptedTurn("Please go on with my request.")
    return ScriptedTurn("Hello, I need your help with a request.")


def _do_step(situation: Situation, script: Script, number: int) -> ScriptedTurn:
    if 0 < number <= len(script.steps):
        step = script.steps[number - 1]
        if step.by_user and step.name in situation.tools and not _was_played(situation.messages, step):
            return play(situation, step)
    return ScriptedTurn(saying_done(number))


def _after_own_call(situation: Situation, script: Script, result: Message) -> ScriptedTurn:
    """Say that the step is done, or do it again when the call that was answered was not the gold one."""
    answered = result.get("tool_call_id")
    for message in reversed(situation.messages):
        if message.get("role") == "user" and (ask := ASK.search(text_of(message))) is not None:
            return _do_step(situation, script, int(ask[1]))
    number = step_number(str(answered))
    return (
        ScriptedTurn(saying_done(number))
        if number is not None
        else ScriptedTurn("I have done that. Please go on with my request.")
    )


def _was_played(messages: Sequence[Message], step: Step) -> bool:
    """Whether the step's call was answered: one with our id ever, one with another id since it was asked for last."""
    answered = set()
    since_ask = True
    for message in reversed(messages):
        role = message.get("role")
        if role == "tool":
            answered.add(message.get("tool_call_id"))
        elif role == "user":
            ask = ASK.search(text_of(message))
            since_ask = since_ask and (ask is None or int(ask[1]) != step.number)
        elif role == "assistant":
            for call_id, name, arguments in calls_of(message):
                if call_id in answered and equals(step, name, arguments):
                    number = step_number(call_id)
                    if number == step.number or (number is None and since_ask):
                        return True
    return False


def _texts_not_understood(messages: Sequence[Message]) -> int:
    """Agent texts at the end of the conversation that are neither a closing nor ask for a step."""
    count = 0
    for message in reversed(messages):
        if message.get("role") == "user":
            if ASK.search(text_of(message)) is not None:
                break
            count += 1
    return count


def generic_user(situation: Situation) -> ScriptedTurn:
    own = sum(message.get("role") == "assistant" for message in situation.messages)
    return ScriptedTurn(_STOP if own + 1 >= GENERIC_TURNS else "Hello, I need your help with a request.")
