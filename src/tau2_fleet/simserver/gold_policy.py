"""What a simulated model says next, for every role: a pure function of session, script and messages.

A gold step that was played carries its number in the id of its tool call, and the two sides name the
number when they speak of a step, so that progress is read from the last turns alone: cut histories,
lost or repeated turns and malformed calls do not confuse it. Calls with other ids (another model's,
a task's own history) count when they equal the next gold action.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.customer import generic_user, user
from tau2_fleet.simserver.judge_side import verdict
from tau2_fleet.simserver.policy_words import (
    ASK,
    CLOSING,
    DONE,
    Message,
    ScriptedTurn,
    Situation,
    any_call,
    asking_for,
    calls_of,
    equals,
    make_call,
    play,
    step_number,
    text_of,
)
from tau2_fleet.simserver.review_side import review
from tau2_fleet.simserver.scripts import Script, Step

MAX_ASKS = 8
"""How often the agent asks for a user's step before it goes on without (the user may be a real model)."""

_EXPERT = re.compile(r"expert-\d+")
_CALL_EXPERT = "call_expert"
_SOLO_DONE = "done"


def next_turn(situation: Situation) -> ScriptedTurn:
    """The simulated model's next message."""
    turn = _free_turn(situation)
    choice = situation.tool_choice
    if choice == "none":
        return turn if turn.text is not None else ScriptedTurn("I would rather use a tool for that.")
    if choice.startswith("="):
        name = choice[1:]
        return turn if turn.calls and turn.calls[0].name == name else any_call(situation, name)
    if choice == "required" and not turn.calls and situation.tools:
        return any_call(situation, next(iter(situation.tools)))
    return turn


def _free_turn(situation: Situation) -> ScriptedTurn:
    if situation.session is None and situation.tools and len(situation.messages) <= 2:
        # Outside any simulation: a preflight, which wants to see a tool call.
        return any_call(situation, next(iter(situation.tools)))
    if situation.role == "judge":
        return ScriptedTurn(verdict(situation))
    if situation.role.startswith("reviewer"):
        return ScriptedTurn(review(situation))
    if situation.role == "user":
        return generic_user(situation) if situation.script is None else user(situation, situation.script)
    if situation.script is None:
        return _generic_agent(situation)
    if situation.role == "agent" and (expert := _expert_to_call(situation)) is not None:
        return make_call(situation, "expert", _CALL_EXPERT, orjson.dumps({"expert": expert}).decode())
    return _agent(situation, situation.script)


def _agent(situation: Situation, script: Script) -> ScriptedTurn:
    solo = _SOLO_DONE in situation.tools
    for step in script.steps[_progress(situation, script, solo) :]:
        if step.by_user and not solo:
            if _times_asked(situation.messages, step) < MAX_ASKS:
                return ScriptedTurn(asking_for(step))
        elif step.name in situation.tools:
            return play(situation, step)
    if solo:
        return make_call(situation, "done", _SOLO_DONE, "{}")
    return ScriptedTurn("\n".join(("Here is what I have for you:", *script.facts, CLOSING)))


def _progress(situation: Situation, script: Script, solo: bool) -> int:
    """How many of the steps lie behind."""
    steps = script.steps
    answered = {message.get("tool_call_id") for message in situation.messages if message.get("role") == "tool"}
    behind = 0
    for message in situation.messages:
        role = message.get("role")
        if role == "assistant":
            for call_id, name, arguments in calls_of(message):
                if call_id not in answered:
                    continue
                number = step_number(call_id)
                if number is None:
                    behind = _behind_after(situation, steps, behind, name, arguments, solo)
                elif 0 < number <= len(steps) and equals(steps[number - 1], name, arguments):
                    behind = max(behind, number)
        elif role == "user" and (done := DONE.match(text_of(message))) is not None:
            behind = max(behind, min(int(done[1]), len(steps)))
    return behind


def _behind_after(
    situation: Situation, steps: Sequence[Step], behind: int, name: str, arguments: str, solo: bool
) -> int:
    """Progress after a call that somebody else made: it counts when it is our own next step."""
    for step in steps[behind:]:
        if (solo or not step.by_user) and step.name in situation.tools:
            return step.number if equals(step, name, arguments) else behind
    return behind


def _times_asked(messages: Sequence[Message], step: Step) -> int:
    times = 0
    for message in messages:
        if message.get("role") == "assistant":
            ask = ASK.search(text_of(message))
            times += ask is not None and int(ask[1]) == step.number
    return times


def _expert_to_call(situation: Situation) -> str | None:
    """The expert to hand this turn to; none right after one has failed."""
    schema = situation.tools.get(_CALL_EXPERT)
    if schema is None or situation.call_expert_rate <= 0 or situation.session is None:
        return None
    messages = situation.messages
    for message in reversed(messages):
        if message.get("role") != "tool":
            if any(name == _CALL_EXPERT for _, name, _ in calls_of(message)):
                return None
            break
    draw = chance(situation.seed, "expert", situation.session.simulation, len(messages))
    if draw >= situation.call_expert_rate:
        return None
    names = sorted(set(_EXPERT.findall(orjson.dumps(schema).decode())))
    return names[int(draw / situation.call_expert_rate * len(names))] if names else None


def _generic_agent(situation: Situation) -> ScriptedTurn:
    """An unknown task."""
    if _SOLO_DONE in situation.tools:
        return make_call(situation, "done", _SOLO_DONE, "{}")
    return ScriptedTurn("I am listening. Please tell me more.")
