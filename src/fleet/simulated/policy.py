"""What a simulated model says next, for every role: a pure function of session, script and messages.

A gold step that was played carries its number in the id of its tool call, and the two sides name the
number when they speak of a step, so that progress is read from the last turns alone: cut histories,
lost or repeated turns and malformed calls do not confuse it. Calls with other ids (another model's,
a task's own history) count when they equal the next gold action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from src.fleet.simulated.chance import chance
from src.fleet.simulated.scripts import Script, Step

Message = Mapping[str, Any]

MAX_ASKS = 3
"""How often the agent asks for a user's step before it goes on without (the user may be a real model)."""
GENERIC_USER_TURNS = 3
"""Turns after which the user of an unknown task hangs up."""
USER_PATIENCE = 8
"""Agent texts in succession that the scripted user does not understand before it hangs up."""

_STOP = "Thank you, that is all. ###STOP###"
_CLOSING = "That settles everything you asked for."
_ASK = re.compile(r"please do step (\d+) on your side")
_DONE = re.compile(r"^Step (\d+) is done\b")
_EXPERT = re.compile(r"expert-\d+")
_CALL_EXPERT = "call_expert"
_SOLO_DONE = "done"


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks, from `<run8>/<domain>/<quoted task id>/<trial>/<role>`."""

    domain: str
    quoted_task_id: str
    trial: str
    role: str

    @property
    def simulation(self) -> str:
        """What stays the same when a simulation is run again in another run."""
        return f"{self.domain}/{self.quoted_task_id}/{self.trial}"


def parse_session(text: str) -> Session | None:
    """None when the text has another form."""
    parts = text.split("/")
    return Session(*parts[1:]) if len(parts) == 5 and all(parts) else None


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A reply: a text or tool calls, never both."""

    text: str | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a reply depends on."""

    session: Session | None
    role: str
    script: Script | None
    messages: Sequence[Message]
    tools: Mapping[str, Mapping[str, Any]]
    """Offered functions by name, as their schemas."""
    tool_choice: str = "auto"
    """`none`, `auto`, `required`, or `=NAME` for a named tool."""
    call_expert_rate: float = 0.0
    seed: int = 0


def next_turn(situation: Situation) -> Turn:
    """The simulated model's next message."""
    turn = _free_turn(situation)
    choice = situation.tool_choice
    if choice == "none":
        return turn if turn.text is not None else Turn("I would rather use a tool for that.")
    if choice.startswith("="):
        name = choice[1:]
        return turn if turn.calls and turn.calls[0].name == name else _any_call(situation, name)
    if choice == "required" and not turn.calls and situation.tools:
        return _any_call(situation, next(iter(situation.tools)))
    return turn


def _free_turn(situation: Situation) -> Turn:
    if situation.role == "judge":
        return Turn(_verdict(situation))
    if situation.role == "user":
        return _generic_user(situation) if situation.script is None else _user(situation, situation.script)
    if situation.script is None:
        return _generic_agent(situation)
    if situation.role == "agent" and (expert := _expert_to_call(situation)) is not None:
        return _call(situation, "expert", _CALL_EXPERT, orjson.dumps({"expert": expert}).decode())
    return _agent(situation, situation.script)


# The agent and the experts


def _agent(situation: Situation, script: Script) -> Turn:
    solo = _SOLO_DONE in situation.tools
    for step in script.steps[_progress(situation, script, solo) :]:
        if step.by_user and not solo:
            if _times_asked(situation.messages, step) < MAX_ASKS:
                return Turn(f"To go on, please do step {step.number} on your side ({step.name}) and tell me then.")
        elif step.name in situation.tools:
            return _play(situation, step)
    if solo:
        return _call(situation, "done", _SOLO_DONE, "{}")
    return Turn("\n".join(("Here is what I have for you:", *script.facts, _CLOSING)))


def _progress(situation: Situation, script: Script, solo: bool) -> int:
    """How many of the steps lie behind."""
    steps = script.steps
    answered = {message.get("tool_call_id") for message in situation.messages if message.get("role") == "tool"}
    behind = 0
    for message in situation.messages:
        role = message.get("role")
        if role == "assistant":
            for call_id, name, arguments in _calls_of(message):
                if call_id not in answered:
                    continue
                number = _step_number(call_id)
                if number is None:
                    behind = _behind_after(situation, steps, behind, name, arguments, solo)
                elif 0 < number <= len(steps) and _equals(steps[number - 1], name, arguments):
                    behind = max(behind, number)
        elif role == "user" and (done := _DONE.match(_text(message))) is not None:
            behind = max(behind, min(int(done[1]), len(steps)))
    return behind


def _behind_after(
    situation: Situation, steps: Sequence[Step], behind: int, name: str, arguments: str, solo: bool
) -> int:
    """Progress after a call that somebody else made: it counts when it is our own next step."""
    for step in steps[behind:]:
        if (solo or not step.by_user) and step.name in situation.tools:
            return step.number if _equals(step, name, arguments) else behind
    return behind


def _times_asked(messages: Sequence[Message], step: Step) -> int:
    times = 0
    for message in messages:
        if message.get("role") == "assistant":
            ask = _ASK.search(_text(message))
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
            if any(name == _CALL_EXPERT for _, name, _ in _calls_of(message)):
                return None
            break
    draw = chance(situation.seed, "expert", situation.session.simulation, len(messages))
    if draw >= situation.call_expert_rate:
        return None
    names = sorted(set(_EXPERT.findall(orjson.dumps(schema).decode())))
    return names[int(draw / situation.call_expert_rate * len(names))] if names else None


def _generic_agent(situation: Situation) -> Turn:
    """An unknown task; a request outside any simulation (a preflight) with tools gets a call of the first one."""
    if _SOLO_DONE in situation.tools:
        return _call(situation, "done", _SOLO_DONE, "{}")
    if situation.session is None and situation.tools and len(situation.messages) <= 2:
        return _any_call(situation, next(iter(situation.tools)))
    return Turn("I am listening. Please tell me more.")


# The user


def _user(situation: Situation, script: Script) -> Turn:
    messages = situation.messages
    last = messages[-1] if messages else {}
    if last.get("role") == "tool":
        return _after_own_call(situation, script, last)
    heard = _text(last)
    if _CLOSING in heard:
        return Turn(_STOP)
    if (ask := _ASK.search(heard)) is not None:
        return _do_step(situation, script, int(ask[1]))
    if _texts_not_understood(messages) >= USER_PATIENCE:
        return Turn(_STOP)
    if any(message.get("role") == "assistant" for message in messages) or script.has_history:
        return Turn("Please go on with my request.")
    return Turn("Hello, I need your help with a request.")


def _do_step(situation: Situation, script: Script, number: int) -> Turn:
    if 0 < number <= len(script.steps):
        step = script.steps[number - 1]
        if step.by_user and step.name in situation.tools and not _was_played(situation.messages, step):
            return _play(situation, step)
    return _say_done(number)


def _after_own_call(situation: Situation, script: Script, result: Message) -> Turn:
    """Say that the step is done, or do it again when the call that was answered was not the gold one."""
    answered = result.get("tool_call_id")
    for message in reversed(situation.messages):
        if message.get("role") == "user" and (ask := _ASK.search(_text(message))) is not None:
            return _do_step(situation, script, int(ask[1]))
    number = _step_number(str(answered))
    return _say_done(number) if number is not None else Turn("I have done that. Please go on with my request.")


def _was_played(messages: Sequence[Message], step: Step) -> bool:
    """Whether the step's call was answered: one with our id ever, one with another id since it was asked for last."""
    answered = set()
    since_ask = True
    for message in reversed(messages):
        role = message.get("role")
        if role == "tool":
            answered.add(message.get("tool_call_id"))
        elif role == "user":
            ask = _ASK.search(_text(message))
            since_ask = since_ask and (ask is None or int(ask[1]) != step.number)
        elif role == "assistant":
            for call_id, name, arguments in _calls_of(message):
                if call_id in answered and _equals(step, name, arguments):
                    number = _step_number(call_id)
                    if number == step.number or (number is None and since_ask):
                        return True
    return False


def _texts_not_understood(messages: Sequence[Message]) -> int:
    """Agent texts at the end of the conversation that are neither a closing nor ask for a step."""
    count = 0
    for message in reversed(messages):
        if message.get("role") == "user":
            if _ASK.search(_text(message)) is not None:
                break
            count += 1
    return count


def _say_done(number: int) -> Turn:
    return Turn(f"Step {number} is done. What comes next?")


def _generic_user(situation: Situation) -> Turn:
    own = sum(message.get("role") == "assistant" for message in situation.messages)
    return Turn(_STOP if own + 1 >= GENERIC_USER_TURNS else "Hello, I need your help with a request.")


# The judge


def _verdict(situation: Situation) -> str:
    """All assertions met: those of the prompt, or of the script when the prompt has none to be read."""
    assertions = _assertions_in(_text(situation.messages[-1]) if situation.messages else "")
    if not assertions and situation.script is not None:
        assertions = list(situation.script.assertions)
    results = [
        {"expectedOutcome": assertion, "reasoning": "The scripted conversation meets it.", "metExpectation": True}
        for assertion in assertions
    ]
    return orjson.dumps({"results": results}).decode()


def _assertions_in(prompt: str) -> list[str]:
    _, mark, tail = prompt.rpartition("expectedOutcomes:")
    if not mark:
        return []
    import ast  # the list stands in the prompt as Python writes it; only judges need this import

    try:
        found = ast.literal_eval(tail.strip())
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


# Messages and calls


def _play(situation: Situation, step: Step) -> Turn:
    return _call(situation, str(step.number), step.name, step.encoded)


def _call(situation: Situation, mark: str, name: str, arguments: str) -> Turn:
    """One call; the number of messages keeps its id apart from those of earlier tries."""
    return Turn(calls=(Call(f"call-{mark}-{len(situation.messages)}", name, arguments),))


def _any_call(situation: Situation, name: str) -> Turn:
    schema = situation.tools.get(name, {})
    return _call(situation, "any", name, orjson.dumps(_example(schema.get("parameters") or {})).decode())


def _example(schema: Mapping[str, Any]) -> Any:
    """The least value that a JSON schema of a tool's parameters allows."""
    if schema.get("enum"):
        return schema["enum"][0]
    for option in schema.get("anyOf") or ():
        return _example(option)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        return {name: _example(properties.get(name) or {}) for name in schema.get("required") or ()}
    examples: dict[Any, Any] = {"array": [], "integer": 0, "number": 0, "boolean": False, "null": None}
    return examples.get(kind, "x") if isinstance(kind, str) else "x"


def _step_number(call_id: str) -> int | None:
    """The step that a call of ours plays; 0 for our other calls; None for anybody else's."""
    parts = call_id.split("-")
    if len(parts) != 3 or parts[0] != "call":
        return None
    return int(parts[1]) if parts[1].isdecimal() else 0


def _equals(step: Step, name: str, arguments: str) -> bool:
    if name != step.name:
        return False
    if arguments == step.encoded:
        return True
    try:
        return bool(orjson.loads(arguments) == step.arguments)
    except orjson.JSONDecodeError:
        return False


def _calls_of(message: Message) -> list[tuple[str, str, str]]:
    """Id, name and arguments' text of the calls of an assistant message."""
    calls = message.get("tool_calls")
    if not calls:
        return []
    found = []
    for call in calls:
        function = call.get("function") or {}
        found.append((str(call.get("id")), str(function.get("name")), str(function.get("arguments"))))
    return found


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""
