"""Replies that answer 200 and are not what the model said: what parsers, templates and gateways make of them.

`completions.py` calls `spoil` for the fault kinds of `SPOILING`; what was done is logged, so that a test can count it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tau2_fleet.fleet.settings import FaultKind
from tau2_fleet.simserver.faults import Fault
from tau2_fleet.simserver.policy_words import Message, calls_of, text_of

Json = dict[str, Any]

REPEATED_TEXT = "As I said before: one moment, please."
_REPEATS = 3
_THOUGHT = "The other side seems content, so perhaps ###STOP### or ###TRANSFER### is next. No, not yet."


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A spoilt completion, and which condition a client should find in it."""

    completion: Json
    condition: str | None


def spoil(payload: bytes, fault: Fault) -> Spoilt | None:
    """The completion as a fault of its kind makes it; None: there is nothing of that kind to spoil in it."""
    completion: Json = orjson.loads(payload)
    spoiler = SPOILING[fault.kind]
    if not spoiler(completion, completion["choices"][0], fault):
        return None
    return Spoilt(completion, None if fault.kind is FaultKind.long_id else fault.kind.value)


def goes_on_repeating(messages: Sequence[Message]) -> bool:
    """Whether a repetition has begun and is not through."""
    return 0 < _times_said(REPEATED_TEXT, messages) < _REPEATS


def is_third_time(text: str, messages: Sequence[Message]) -> bool:
    """Whether a text has been said twice in a row, or more, up to the end of the history."""
    return _times_said(text, messages) >= _REPEATS - 1


def _times_said(text: str, messages: Sequence[Message]) -> int:
    times = 0
    for message in reversed(messages):
        if message.get("role") != "assistant" or calls_of(message):
            continue
        if text_of(message) != text:
            break
        times += 1
    return times


def _aborted(completion: Json, choice: Json, fault: Fault) -> bool:
    message = choice["message"]
    if message.get("content"):
        message["content"] = message["content"][: len(message["content"]) // 2]
    for call in message.get("tool_calls") or ():
        call["function"]["arguments"] = call["function"]["arguments"][:-1]
    choice["finish_reason"] = ("abort", "cancelled", {"type": "abort", "message": "shutting down"})[fault.one_of(3)]
    return True


def _error_inside(completion: Json, choice: Json, fault: Fault) -> bool:
    error = {"code": 502, "message": "the engine behind the gateway failed"}
    form = fault.one_of(4)
    if form == 0:
        choice |= {"finish_reason": "error", "error": error}
    elif form == 1:
        choice["finish_reason"] = "error"
    elif form == 2:
        completion["error"] = error
    else:
        del completion["choices"]
        completion["error"] = {**error, "code": "internal"}
    return True


def _to_calls(change: Callable[[Json, Fault], bool]) -> Callable[[Json, Json, Fault], bool]:
    """A spoiler of every call of a reply."""

    def spoiler(completion: Json, choice: Json, fault: Fault) -> bool:
        changed = [change(call, fault) for call in choice["message"].get("tool_calls") or ()]
        return any(changed)

    return spoiler


def _arguments_empty(call: Json, fault: Fault) -> bool:
    function = call["function"]
    if function["arguments"] != "{}":
        return False
    function["arguments"] = ("", "  ", "null", None)[fault.one_of(4)]
    return True


def _arguments_double(call: Json, fault: Fault) -> bool:
    call["function"]["arguments"] = orjson.dumps(call["function"]["arguments"]).decode()
    return True


def _arguments_malformed(call: Json, fault: Fault) -> bool:
    arguments = call["function"]["arguments"]
    broken = ('{"', f"{arguments[:-1]},", f"[{arguments}]", "call it, please")
    call["function"]["arguments"] = broken[fault.one_of(len(broken))]
    return True


def _tool_name_marked(call: Json, fault: Fault) -> bool:
    name = call["function"]["name"]
    marked = (f"{name}<|channel|>commentary", f"functions.{name}", f" {name} ", f"{name}<|constrain|>json")
    call["function"]["name"] = marked[fault.one_of(len(marked))]
    return True


def _tool_unknown(call: Json, fault: Fault) -> bool:
    call["function"]["name"] += "_now"
    return True


def _long_id(call: Json, fault: Fault) -> bool:
    call["id"] = f"call_{call['id']}".ljust(46, "0")
    return True


def _only_thinking(completion: Json, choice: Json, fault: Fault) -> bool:
    key = ("reasoning_content", "reasoning")[fault.one_of(2)]
    choice["message"] = {"role": "assistant", "content": (None, "")[fault.one_of(2)], key: _THOUGHT}
    choice["finish_reason"] = "stop"
    return True


def _thinking_left(completion: Json, choice: Json, fault: Fault) -> bool:
    text = choice["message"].get("content") or ""
    forms = (
        f"<think>{_THOUGHT}</think>\n\n{text}",
        f"{_THOUGHT}</think>{text}",
        f"<think>{_THOUGHT}</think>\n{_THOUGHT}\n</think>\n\n{text}",
        f"[THINK]{_THOUGHT}[/THINK]{text}",
        f"<thought>{_THOUGHT}</thought>{text}",
        f"<seed:think>{_THOUGHT}</seed:think>{text}",
        f"analysis{_THOUGHT}assistantfinal{text}",
    )
    choice["message"]["content"] = forms[fault.one_of(len(forms))]
    return True


def _usage_missing(completion: Json, choice: Json, fault: Fault) -> bool:
    nothing = {"prompt_tokens": "many", "completion_tokens": None, "total_tokens": -1}
    completion["usage"] = (None, {}, nothing)[fault.one_of(3)]
    return True


def _markup_left(completion: Json, choice: Json, fault: Fault) -> bool:
    calls = choice["message"].get("tool_calls")
    if not calls:
        return False
    name, arguments = calls[0]["function"]["name"], calls[0]["function"]["arguments"]
    python = ", ".join(f"{key}={value!r}" for key, value in orjson.loads(arguments).items())
    plain = f'{{"name": "{name}", "arguments": {arguments}}}'
    forms = (
        f"<tool_call>\n{plain}\n</tool_call>",
        f"<tool_call>\n<function={name}>\n</function>\n</tool_call>",
        plain,
        f"[{name}({python})]",
        f"[TOOL_CALLS][{plain}]",
        f'<｜DSML｜function_calls><｜DSML｜invoke name="{name}">',
        f"assistantcommentary to=functions.{name} json{arguments}",
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0",
        f'<minimax:tool_call><invoke name="{name}">',
        f">>>{name}\n{arguments}",
    )
    choice["message"] = {"role": "assistant", "content": forms[fault.one_of(len(forms))]}
    choice["finish_reason"] = "stop"
    return True


def _filtered(completion: Json, choice: Json, fault: Fault) -> bool:
    choice["finish_reason"] = ("content_filter", "SAFETY")[fault.one_of(2)]
    return True


def _cut(completion: Json, choice: Json, fault: Fault) -> bool:
    text = choice["message"].get("content")
    if not text:
        return False
    choice["message"]["content"] = text[:12]
    choice["finish_reason"] = ("length", "MAX_TOKENS")[fault.one_of(2)]
    return True


def _degenerate(completion: Json, choice: Json, fault: Fault) -> bool:
    text = ("!" * 400, "ha " * 100, "I am sorry. " * 30)[fault.one_of(3)]
    choice["message"] = {"role": "assistant", "content": text}
    choice["finish_reason"] = "stop"
    return True


TEXT_STAYS = frozenset(
    {FaultKind.repeated, FaultKind.filtered, FaultKind.thinking_left, FaultKind.usage_missing, FaultKind.slow}
    | {FaultKind.malformed_call, FaultKind.arguments_empty, FaultKind.arguments_double, FaultKind.tool_name_marked}
    | {FaultKind.long_id, FaultKind.arguments_malformed, FaultKind.tool_unknown, FaultKind.markup_left}
)
"""Kinds that bring a reply with a text to its reader as it was."""

SPOILING: Mapping[FaultKind, Callable[[Json, Json, Fault], bool]] = {
    FaultKind.aborted: _aborted,
    FaultKind.error_inside: _error_inside,
    FaultKind.arguments_empty: _to_calls(_arguments_empty),
    FaultKind.arguments_double: _to_calls(_arguments_double),
    FaultKind.tool_name_marked: _to_calls(_tool_name_marked),
    FaultKind.long_id: _to_calls(_long_id),
    FaultKind.only_thinking: _only_thinking,
    FaultKind.thinking_left: _thinking_left,
    FaultKind.usage_missing: _usage_missing,
    FaultKind.arguments_malformed: _to_calls(_arguments_malformed),
    FaultKind.tool_unknown: _to_calls(_tool_unknown),
    FaultKind.markup_left: _markup_left,
    FaultKind.filtered: _filtered,
    FaultKind.cut: _cut,
    FaultKind.degenerate: _degenerate,
}
"""What each kind does to a completion and its one choice; False: it finds nothing to do."""
