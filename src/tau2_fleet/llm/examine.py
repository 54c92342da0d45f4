"""Looks at the answer of any provider once, in one place: what of it is said, thought and called, and its conditions.

`llm.model` calls `examine` for every whole answer; providers call `check_whole` where they read theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any

from tau2_fleet.llm import thinking
from tau2_fleet.llm.call_mending import clean_name, marks_inside, mend_arguments, taken_apart
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.failures import Failure, FailureCause, failure_of_error, short
from tau2_fleet.llm.finish_reasons import CALM, OF_CALLS, meaning_of, plain_reason
from tau2_fleet.llm.markup import find_markup
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.template import BESIDE_TURN, own_turn
from tau2_fleet.llm.types import ChatRequest, ToolCallText, ToolSet, Usage

_DOUBTFUL_LENGTH = 200
"""Characters beyond which one cycle is no accident."""
_LONGEST_CYCLE = 600
_RECURRENCES = 3
"""A piece of the text can come more than once in its cycle."""
_BYTES_PER_TOKEN = 4
_NO_WORDS = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\ufff0-\uffff]+"
    r"|<[|｜][^<>|｜\s]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|unk|mask|eot|eod|sep|cls)>|<0x[0-9A-Fa-f]{2}>|<end_of_\w+>"
    r"|<\|turn>|<turn\|>|<seed:[be]os>|</?assistant>|\[(?:PAD|EOS|BOS|UNK|MASK|DONE)\]|\[\|\w{1,20}\|\]"
    r"|<(?:extra_id_|unused|SPECIAL_|reserved_)\d+>|\[unused\d+\]"
)
"""Signs that nobody sees, and tokens that only begin, end or fill something."""


@dataclass(slots=True)
class Examined:
    """An answer, told apart."""

    text: str | None
    tool_calls: tuple[ToolCallText, ...]
    thinking: str | None
    conditions: list[Condition] = field(default_factory=list)
    details: dict[Condition, str] = field(default_factory=dict)

    def note(self, condition: Condition, detail: str | None = None) -> None:
        if condition not in self.conditions:
            self.conditions.append(condition)
        if detail:
            self.details.setdefault(condition, detail)


def check_whole(reasons: Sequence[Any], error: Any, usage: Usage) -> None:
    """Refuse an answer with status 200 that the server broke off or that carries an error.

    Args:
        reasons: the finish reason in every form in which the answer has it.
        error: what stands in the answer under `error`.

    Raises:
        Failure: such an answer; one that is asked for again, with the condition on it.
    """
    if error:
        raise _error_inside(error, usage)
    for reason in reasons:
        if reason is None or (isinstance(reason, str) and reason in CALM):
            continue
        condition = meaning_of(reason)
        if condition is Condition.aborted:
            told = f"the server broke the answer off (finish_reason {short(str(plain_reason(reason)))})"
            raise _spoilt(Failure(FailureCause.server, told, usage=usage), condition)
        if condition is Condition.error_inside:
            told = f"the answer ended in an error of the server (finish_reason {short(str(plain_reason(reason)))})"
            raise _spoilt(Failure(FailureCause.server, told, usage=usage), condition)


def _error_inside(error: Any, usage: Usage) -> Failure:
    """OpenRouter and others answer with status 200 and an `error` object that has the true status as its code."""
    failure = failure_of_error(error)
    failure.usage = usage
    if failure.cause is FailureCause.refused:  # by whatever stands behind this server: another attempt may fare better
        failure.cause = FailureCause.server
    return _spoilt(failure, Condition.error_inside)


def _spoilt(failure: Failure, condition: Condition) -> Failure:
    failure.condition = condition
    return failure


def examine(answer: ProviderAnswer, tools: ToolSet | None) -> Examined:
    """What the answer says, thinks and calls, and every condition that can be seen in it alone."""
    said, thoughts = thinking.cut(answer.text)
    thought = answer.thinking or None
    if thoughts is None:
        said = thinking.unwrapped(said).lstrip() if said and thought else said
    else:
        thought = "\n".join(part for part in (thought, *thoughts) if part) or None
    whole = said
    turn = own_turn(said) if said and not _says_nothing(said) else None
    if turn is not None:
        said = turn[0]
        if turn[1].strip():
            thought = "\n".join(part for part in (thought, turn[1].strip()) if part)
    seen = Examined(said, answer.tool_calls, thought)
    if thoughts is not None or turn is not None:
        seen.note(Condition.thinking_left, None if turn is None or thoughts is not None else f"{BESIDE_TURN} {turn[2]}")
    if answer.tool_calls:
        seen.tool_calls = tuple([_call(call, tools, seen) for call in answer.tool_calls])
    usable = bool(seen.tool_calls) or bool(said and not _says_nothing(said))
    if not usable:
        seen.text = said and ""
        seen.note(Condition.only_thinking if thought else Condition.empty)
    if tools is not None:
        _look_for_markup(seen, whole, tools, usable, answer.finish_reason)
    for reason in (answer.finish_reason, answer.native_reason):
        if reason is not None and reason not in CALM and (condition := meaning_of(reason)) is not None:
            seen.note(condition)
    if answer.refused:
        seen.note(Condition.filtered)
    if is_degenerate(answer.text) or (not usable and is_degenerate(thought)):
        seen.note(Condition.degenerate)
    if answer.usage_missing:
        seen.note(Condition.usage_missing)
    return seen


def _says_nothing(text: str) -> bool:
    """Whether a text is blanks that may have no width, and tokens that end a turn."""
    if text[:1].isalnum():
        return False
    return len(text) < _DOUBTFUL_LENGTH and not _NO_WORDS.sub("", text)


def _look_for_markup(seen: Examined, text: str | None, tools: ToolSet, usable: bool, reason: str | None) -> None:
    markup = find_markup(text, tools.names)
    if markup is None and not seen.tool_calls and seen.thinking:
        # Thinking may speak of tools; without tags it is taken for a call only where nothing else came.
        markup = find_markup(seen.thinking, tools.names, plain=not usable)
    if markup is not None:
        seen.note(Condition.markup_left, markup.piece)
    elif reason in OF_CALLS and not seen.tool_calls and usable:
        seen.note(Condition.markup_left, f"finish_reason {reason} without any call")


def _call(call: ToolCallText, tools: ToolSet | None, seen: Examined) -> ToolCallText:
    """The call with its name and arguments mended, where the server marked or packed them."""
    name, arguments = call.name, call.arguments
    if tools is None or name not in tools.names:
        clean = None if tools is None else clean_name(name, tools.names)
        if clean is None and tools is not None and "{" in name and arguments.strip() in ("", "{}", "null"):
            clean, arguments = taken_apart(name, tools.names) or (None, arguments)
        if clean is None:
            seen.note(Condition.tool_unknown, short(name))
            if (left := marks_inside(name)) is not None:
                seen.note(Condition.markup_left, left)
        else:
            seen.note(Condition.tool_name_marked, short(name))
            name = clean
    arguments, wrong = mend_arguments(name, arguments)
    if wrong is not None:
        seen.note(wrong)
        if wrong is Condition.arguments_malformed and is_degenerate(arguments):
            seen.note(Condition.degenerate)
    if (left := marks_inside(arguments)) is not None:
        seen.note(Condition.markup_left, left)
    return call if name is call.name and arguments is call.arguments else ToolCallText(call.id, name, arguments)


def is_degenerate(text: str | None) -> bool:
    """Whether one character or a short cycle makes up over 95% of a text of more than 200 characters."""
    if text is None or len(text) <= _DOUBTFUL_LENGTH:
        return False
    enough = 0.95 * len(text)
    for at in (len(text) // 4, len(text) // 2, 3 * len(text) // 4):
        if text.count(text[at]) > enough:
            return True
        piece = text[at : at + 16]
        period, last = 0, at + len(piece) + min(_LONGEST_CYCLE, len(text) // 4)
        for _ in range(_RECURRENCES):
            period = text.find(piece, at + period + 1, last) - at
            if period <= 0:
                break
            if sum(map(eq, text, text[period:])) > 0.95 * (len(text) - period):
                return True
    return False


def estimated_usage(request: ChatRequest, answer: ProviderAnswer) -> Usage:
    """Tokens by the length of what was sent and received, where the server does not tell them."""
    sent = sum([len(message.encoded) for message in request.messages])
    sent += 0 if request.tools is None else len(request.tools.encoded)
    received = len(answer.text or "") + len(answer.thinking or "")
    received += sum([len(call.name) + len(call.arguments) for call in answer.tool_calls])
    told = answer.usage
    return Usage(
        input_tokens=told.input_tokens or -(-sent // _BYTES_PER_TOKEN),
        output_tokens=told.output_tokens or -(-received // _BYTES_PER_TOKEN),
        cached_tokens=told.cached_tokens,
    )
