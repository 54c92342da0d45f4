"""Conversations by the gold actions of a task, in words, and faults that a script puts into them.

Every conversation is played in the task's own environment and scored by the benchmark's rules, so that tool answers
and rewards are what they would be. `benchmarks/reviewing.py` and the tests of reviews use it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, UserMessage
from tau2_fleet.evaluation.reward import evaluate

Json = dict[str, Any]
GREETING = "Hi! How can I help you today?"
BYE = "No, that is all. Thank you! ###STOP###"
_VERBS = {
    "cancel": "cancelled", "exchange": "exchanged", "return": "returned", "modify": "modified", "update": "updated",
    "book": "booked", "change": "changed", "enable": "enabled", "disable": "disabled", "suspend": "suspended",
    "resume": "resumed", "set": "changed", "toggle": "changed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: a text, or one call."""

    role: str
    """`assistant` or `user`."""
    text: str | None = None
    name: str = ""
    arguments: Json | None = None
    step: int | None = None
    """Number of the gold action that it is about."""
    part: str = ""
    """`ask`, `answer`, `call`, `report`, for what belongs to a gold action; `close` for the last exchange."""


Script = list[Turn]


def script_of(task: Task) -> Script:
    """A conversation in words in which both sides do what the gold actions want."""
    instructions = task.user_scenario.instructions
    reason = str(getattr(instructions, "reason_for_call", None) or instructions)
    known = getattr(instructions, "known_info", None)
    turns = [Turn("assistant", GREETING), Turn("user", f"Hello. {reason}")]
    if known:
        turns += [Turn("assistant", "Gladly. Who are you, and what is it about?"), Turn("user", str(known))]
    criteria = task.evaluation_criteria
    done: list[str] = []
    for number, action in enumerate((criteria.actions if criteria else None) or []):
        turns += _step(number, action, done)
    facts = (criteria.communicate_info if criteria else None) or []
    told = [*(f"I have {text}." for text in done), *facts, "Is there anything else I can help you with?"]
    return [*turns, Turn("assistant", "\n".join(told), part="close"), Turn("user", BYE, part="close")]


def _step(number: int, action: Any, done: list[str]) -> Script:
    words = action.name.replace("_", " ")
    call = Turn(action.requestor, None, action.name, action.arguments, number, "call")
    if action.requestor == "user":
        return [
            Turn("assistant", f"Please {words} on your phone, and tell me when it is done.", step=number, part="ask"),
            call,
            Turn("user", "I have done it.", step=number, part="answer"),
        ]
    if action.name.startswith(("get_", "find_", "list_", "search_", "calculate")):
        return [call]
    if action.name.startswith("transfer"):
        return [call]
    verb = _VERBS.get(action.name.partition("_")[0])
    if verb:
        done.append(f"{verb} it as you wanted ({words})")
    return [*asking(call), call]


def asking(call: Turn) -> Script:
    """The agent's question whether it may, and the customer's answer that it may."""
    told = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in (call.arguments or {}).items())
    question = f"I am about to {call.name.replace('_', ' ')}: {told}. Do you confirm (yes/no)?"
    return [
        Turn("assistant", question, step=call.step, part="ask"),
        Turn("user", "Yes, please go ahead.", step=call.step, part="answer"),
    ]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def script_of_record(record: Json, task: Task) -> Script:
    """The conversation of a record as a script, its calls numbered by the gold actions that they are."""
    criteria = task.evaluation_criteria
    gold = list((criteria.actions if criteria else None) or [])
    turns: Script = []
    for message in record["messages"]:
        if message["role"] == "tool":
            continue
        for call in message.get("tool_calls") or ():
            step = next(
                (n for n, one in enumerate(gold) if (one.name, one.arguments) == (call["name"], call["arguments"])),
                None,
            )
            turns.append(Turn(message["role"], None, call["name"], call["arguments"], step, "call"))
        if message.get("content"):
            turns.append(Turn(message["role"], message["content"]))
    return turns


async def play(
    domain: LocalDomain, task: Task, script: Sequence[Turn], ending: str = "user_stop", trial: int = 0
) -> Json:
    """The script played in the task's environment: a record, with the reward that it gets."""
    environment = domain.environment(task)
    messages: list[Message] = []
    for number, turn in enumerate(script):
        kind = AssistantMessage if turn.role == "assistant" else UserMessage
        if turn.text is not None:
            messages.append(kind(role=turn.role, content=turn.text))
        else:
            call = ToolCall(id=f"c{number}", name=turn.name, arguments=turn.arguments or {}, requestor=turn.role)
            messages.append(kind(role=turn.role, content=None, tool_calls=[call]))
            messages.append(await environment.respond(call))
        environment.sync()
    state = await environment.final_state()
    score = evaluate(task, messages, ending, state, None, domain.rules)
    return {
        "id": f"{domain.name}-{task.id}-{trial}", "domain": domain.name, "task_id": task.id, "trial": trial, "seed": 1,
        "reward": score.reward, "termination_reason": ending, "sub_rewards": score.sub_rewards,
        "db_diff": score.db_diff, "reward_info": score.reward_info, "error": None, "calls": [], "replies": {},
        "duration_s": 1.0, "cost_by_role": {}, "usage_by_role": {},
        "messages": [{**message.model_dump(mode="json"), "turn_idx": turn} for turn, message in enumerate(messages)],
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault can be put."""

    domain: LocalDomain
    task: Task
    script: Script
    luck: random.Random

    def needed(self, requestor: str = "assistant") -> list[int]:
        """Places of the calls that the reward depends on."""
        criteria = self.task.evaluation_criteria
        checked = criteria is not None and "ACTION" in self.domain.rules.basis(criteria)
        return [
            place
            for place, turn in enumerate(self.script)
            if turn.part == "call" and turn.step is not None and turn.role == requestor
            and (self.domain.tool_types.get(turn.name) == "write" or checked)
        ]  # fmt: skip

    def with_question(self, place: int) -> tuple[Script, int, int]:
        """The script in which the call at `place` is asked for, and the places of the answer and the call."""
        call = self.script[place]
        before = self.script[place - 1] if place else None
        if before is not None and before.part == "answer" and before.step == call.step:
            return list(self.script), place - 1, place
        asked = asking(call)
        return [*self.script[:place], *asked, *self.script[place:]], place + 1, place + 2

    def choose(self, places: Sequence[int]) -> int | None:
        return self.luck.choice(places) if places else None


Fault = Callable[[Place], Script | None]
"""Puts a fault into a script; None where the task has no room for it."""

_REFUSALS = (
    "No, I don't want that.",
    "No, please don't do that.",
    "Actually, I changed my mind. Leave it as it is.",
    "I don't want to go ahead with this.",
    "Never mind, do not proceed.",
)
_FAREWELLS = (
    "Okay, thanks. ###STOP###",
    "I have to go now, goodbye. ###STOP###",
    "Thank you for your help! ###STOP###",
)
_FORGETS = ("I don't remember that.", "Sorry, I do not have it with me.", "I can't recall it right now.")


def _changed(value: str, luck: random.Random) -> str:
    """Another value of the same form."""
    places = [place for place, sign in enumerate(value) if sign.isdigit()] or [
        place for place, sign in enumerate(value) if sign.isalpha()
    ]
    place = luck.choice(places)
    old = value[place]
    new = luck.choice([sign for sign in ("0123456789" if old.isdigit() else "aeioumnrst") if sign != old.lower()])
    return value[:place] + (new.upper() if old.isupper() else new) + value[place + 1 :]


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _given(place: Place) -> list[str]:
    """Values that the customer's texts hold and a gold call uses: what it has to say right."""
    said = "\n".join(turn.text for turn in place.script if turn.role == "user" and turn.text)
    used = {value for turn in place.script if turn.arguments for value in _strings(turn.arguments)}
    fit = [value for value in used if len(value) >= 5 and (any(map(str.isdigit, value)) or value.istitle())]
    return sorted(value for value in fit if value in said)


def _calls_with(script: Script, value: str, new: str) -> Script:
    """The script with another value in the calls of the agent and in what it asks."""
    changed = []
    for turn in script:
        if turn.arguments is not None and turn.role == "assistant":
            turn = replace(turn, arguments=json.loads(json.dumps(turn.arguments).replace(value, new)))
        elif turn.text is not None:
            turn = replace(turn, text=turn.text.replace(value, new))
        changed.append(turn)
    return changed


def wrong_value(place: Place) -> Script | None:
    """The customer says one of its values wrong, everywhere, and the agent uses it."""
    values = _given(place)
    if not values or not place.needed():
        return None
    value = place.luck.choice(values)
    return _calls_with(place.script, value, _changed(value, place.luck))


def early_stop(place: Place) -> Script | None:
    """The customer leaves where the agent asks whether it may make a needed change, or anywhere in the middle."""
    if place.luck.random() < 0.5 and len(place.script) > 3:
        cut = place.luck.randrange(2, len(place.script) - 1)
        return [*place.script[:cut], Turn("user", place.luck.choice(_FAREWELLS))]
    call = place.choose(place.needed())
    if call is None:
        return None
    script, answer, _ = place.with_question(call)
    return [*script[:answer], Turn("user", place.luck.choice(_FAREWELLS))]


def refused_confirmation(place: Place) -> Script | None:
    """The customer refuses a needed change; it and those behind it are not made."""
    call = place.choose(place.needed())
    if call is None:
        return None
    script, answer, _ = place.with_question(call)
    return [
        *script[:answer],
        Turn("user", place.luck.choice(_REFUSALS)),
        Turn("assistant", "I understand, then I leave it. Is there anything else I can help you with?"),
        Turn("user", BYE),
    ]


def forgotten_fact(place: Place) -> Script | None:
    """The customer does not give a value that it knows, though the agent asks; nothing that needs it is done."""
    values = [value for value in _given(place) if any(map(str.isdigit, value)) or "@" in value]
    if not values or not place.needed():
        return None
    value = place.luck.choice(values)
    first = next(n for n, turn in enumerate(place.script) if turn.arguments and value in _strings(turn.arguments))
    if any(turn.arguments is not None for turn in place.script[:first]):
        return None  # it may have been found otherwise
    names = [name for name, part in (place.script[first].arguments or {}).items() if value in _strings(part)]
    asked = names[0].replace("_", " ") if names else "details"
    script = [
        replace(turn, text=turn.text.replace(value, "it")) if turn.text and turn.role == "user" else turn
        for turn in place.script[:first]
        if turn.part not in ("ask", "answer") or turn.step is None or turn.step != place.script[first].step
    ]
    return [
        *script,
        Turn("assistant", f"Could you please tell me the {asked}?"),
        Turn("user", place.luck.choice(_FORGETS)),
        Turn("assistant", f"Without the {asked} I cannot go on, I am sorry."),
        Turn("user", "Well, then not. ###STOP###"),
    ]


def agents_work(place: Place) -> Script | None:
    """The customer speaks as the agent, writes its calls, or gives what only the agent can look up."""
    call = place.choose(place.needed())
    if call is None:
        return None
    turn = place.script[call]
    begin = call - 2 if place.script[call - 1].step == turn.step else call
    words = turn.name.replace("_", " ")
    said = "\n".join(one.text for one in place.script[:begin] if one.text) + str(place.task.user_scenario)
    known = [value for value in _strings(turn.arguments) if any(map(str.isdigit, value)) and len(value) >= 5]
    lines = [
        f"I have processed your request ({words}). How can I help you further?",
        f"{turn.name}({json.dumps(turn.arguments)})",
        "Let me look up your account. Could you provide your name, please?",
        "I will cancel your old one now. Is there anything else I can do for you?",
        *(f"You want {value} for this." for value in known if value not in said),
    ]
    line = place.luck.choice(lines)
    return [*place.script[:begin], Turn("assistant", "Just a moment."), Turn("user", line), *place.script[begin:]]


def left_out_step(place: Place) -> Script | None:
    """The customer says that it has done what the agent asked for, and has not."""
    call = place.choose(place.needed("user"))
    return None if call is None else [turn for number, turn in enumerate(place.script) if number != call]


def wrong_argument(place: Place) -> Script | None:
    """The agent makes a needed call with another value than the customer gave."""
    script = place.script
    choices = [
        number for number in place.needed() if any(len(value) >= 4 for value in _strings(script[number].arguments))
    ]
    call = place.choose(choices)
    if call is None:
        return None
    arguments = json.dumps(script[call].arguments)
    value = place.luck.choice(sorted({one for one in _strings(script[call].arguments) if len(one) >= 4}))
    new = json.loads(arguments.replace(json.dumps(value), json.dumps(_changed(value, place.luck))))
    return [*script[:call], replace(script[call], arguments=new), *script[call + 1 :]]


def skipped_step(place: Place) -> Script | None:
    """The agent leaves out a needed change, and does not speak of it."""
    call = place.choose(place.needed())
    if call is None:
        return None
    step = place.script[call].step
    words = place.script[call].name.replace("_", " ")
    kept = [turn for turn in place.script if turn.step is None or turn.step != step]
    return [
        replace(turn, text="\n".join(line for line in turn.text.splitlines() if f"({words})" not in line))
        if turn.part == "close" and turn.text
        else turn
        for turn in kept
    ]


def policy_breach(place: Place) -> Script | None:
    """The agent makes a change that nobody asked for, on somebody else's account."""
    others = [
        action
        for task in place.domain.tasks()
        if task.id != place.task.id and task.initial_state is None and task.evaluation_criteria is not None
        for action in task.evaluation_criteria.actions or ()
        if action.requestor == "assistant" and place.domain.tool_types.get(action.name) == "write"
    ]
    if not others:
        return None
    action = place.luck.choice(others)
    extra = Turn("assistant", None, action.name, action.arguments, None, "call")
    return [*place.script[:-2], extra, *place.script[-2:]]


def false_claim(place: Place) -> Script | None:
    """The agent says that it has made a needed change, and has not."""
    writes = place.needed()
    fit = [number for number in writes if _VERBS.get(place.script[number].name.partition("_")[0])]
    call = place.choose(fit)
    if call is None:
        return None
    turn = place.script[call]
    first = turn.name.partition("_")[0]
    same = [number for number in writes if place.script[number].name.partition("_")[0] == first]
    verb = _VERBS[turn.name.partition("_")[0]]
    kept = [one for number, one in enumerate(place.script) if number not in same]
    place_of_last = max(number for number, one in enumerate(kept) if one.role == "assistant" and one.text)
    last = kept[place_of_last]
    said = f"I have successfully {verb} it for you."
    return [*kept[:place_of_last], replace(last, text=f"{said}\n{last.text}"), *kept[place_of_last + 1 :]]


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        wrong_value, forgotten_fact, refused_confirmation, early_stop, left_out_step, agents_work,
        wrong_argument, skipped_step, policy_breach, false_claim,
    )
}  # fmt: skip
"""By the kind of error (`analysis.reviews.ErrorKind`) that each is."""
