"""Looks at the answer of any provider once, in one place: what of it is said, thought and called, and its conditions.

`llm.model` calls `examine` for every whole answer; providers call `check_whole` where they read theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any

import orjson

from tau2_fleet.llm import thinking
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.failures import Failure, FailureCause, failure_of_error, short
from tau2_fleet.llm.markup import find_markup
from tau2_fleet.llm.message_views import arguments_of
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.types import ChatRequest, ToolCallText, ToolSet, Usage

_CALM = frozenset({"stop", "tool_calls", "end_turn", "tool_use", "stop_sequence", "eos_token", "eos"})
_ABORTED = frozenset(
    {"abort", "aborted", "cancel", "cancelled", "canceled", "interrupted", "insufficient_system_resource", "timeout"}
    | {"unload", "shutdown", "preempted", "disconnect", "incomplete_stream"}
)
_BROKEN = frozenset(
    {"error", "failed", "failure", "network_error", "server_error", "internal_error", "engine_error", "exception"}
    | {"malformed_function_call", "malformed_model_output", "malformed_tool_use", "unexpected_tool_call"}
)
_CUT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_completion_tokens", "model_length", "limit"}
    | {"model_context_window_exceeded", "token_limit", "max_token", "error_limit", "max_length"}
)
_FILTERED = frozenset(
    {"content_filter", "content_filtered", "refusal", "guardrail_intervened", "safety", "recitation", "blocklist"}
    | {"prohibited_content", "spii", "sensitive", "error_toxic", "moderation", "image_safety", "language"}
)
_CYCLE = frozenset({"repetition", "repetition_detected", "repetitive_patterns", "looping_content"})
_WORDS = (
    (_FILTERED, "filter filtered policy violation moderation guardrail blocked unsafe safety"),
    (_BROKEN, "error fail failed failure exception crash crashed oom malformed"),
    (_ABORTED, "abort aborted cancel cancelled canceled interrupted disconnect disconnected timeout time deadline"),
    (_ABORTED, "shutdown dead killed terminated evicted preempted incomplete unavailable expired overload overloaded"),
    (None, "stop eos eot eom end done complete completed finished"),
    (_CUT, "length truncated token tokens context limit max maximum"),
    (_FILTERED, "risk sensitive harm harmful prohibited"),
)
"""Words that tell what a finish reason means that no set above has; the first line that holds one decides."""
_DOUBTFUL_LENGTH = 200
"""Characters beyond which one cycle is no accident."""
_LONGEST_CYCLE = 200
_BYTES_PER_TOKEN = 4
_MOST_SIMPLE_BRACKETS = 50


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
        if reason is None or (isinstance(reason, str) and reason in _CALM):
            continue
        plain = plain_reason(reason)
        kind = _kind_of_reason(plain)
        if kind is _ABORTED:
            told = f"the server broke the answer off (finish_reason {short(str(plain))})"
            raise _spoilt(Failure(FailureCause.server, told, usage=usage), Condition.aborted)
        if kind is _BROKEN:
            told = f"the answer ended in an error of the server (finish_reason {short(str(plain))})"
            raise _spoilt(Failure(FailureCause.server, told, usage=usage), Condition.error_inside)


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


def _kind_of_reason(plain: str | None) -> frozenset[str] | None:
    """Which of the sets above a finish reason belongs to; None: nothing is wrong."""
    if plain is None or plain in _CALM:
        return None
    kind = next((kind for kind in (_ABORTED, _BROKEN, _CUT, _FILTERED, _CYCLE) if plain in kind), None)
    if kind is None:
        words = set(plain.split("_"))
        kind = next((kind for kind, telling in _WORDS if words.intersection(telling.split())), None)
    return kind


def plain_reason(reason: Any) -> str | None:
    """A finish reason as one word in small letters, whichever form a server gives it; None: it is none."""
    if isinstance(reason, dict):  # SGLang's own form
        reason = reason.get("type")
    if not isinstance(reason, str):
        return None
    word = reason.strip().lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return word.removeprefix("finish_reason_").removeprefix("finishreason_")


def examine(answer: ProviderAnswer, tools: ToolSet | None) -> Examined:
    """What the answer says, thinks and calls, and every condition that can be seen in it alone."""
    said, thoughts = thinking.cut(answer.text)
    thought = answer.thinking or None
    if thoughts is None:
        said = thinking.unwrapped(said).lstrip() if said and thought else said
    else:
        thought = "\n".join(part for part in (thought, *thoughts) if part) or None
    seen = Examined(said, answer.tool_calls, thought)
    if thoughts is not None:
        seen.note(Condition.thinking_left)
    if answer.tool_calls:
        seen.tool_calls = tuple([_call(call, tools, seen) for call in answer.tool_calls])
    usable = bool(seen.tool_calls) or bool(said and not said.isspace())
    if not usable:
        seen.note(Condition.only_thinking if thought else Condition.empty)
    if tools is not None:
        _look_for_markup(seen, tools, usable)
    for reason in (answer.finish_reason, answer.native_reason):
        if reason is not None and reason not in _CALM:
            kind = _kind_of_reason(plain_reason(reason))
            if kind is _CUT:
                seen.note(Condition.cut)
            elif kind is _FILTERED:
                seen.note(Condition.filtered)
            elif kind is _CYCLE:
                seen.note(Condition.degenerate)
    if answer.refused:
        seen.note(Condition.filtered)
    if is_degenerate(answer.text) or (not usable and is_degenerate(thought)):
        seen.note(Condition.degenerate)
    if answer.usage_missing:
        seen.note(Condition.usage_missing)
    return seen


def _look_for_markup(seen: Examined, tools: ToolSet, usable: bool) -> None:
    markup = find_markup(seen.text, tools.names)
    if markup is None and not seen.tool_calls and seen.thinking:
        # Thinking may speak of tools; without tags it is taken for a call only where nothing else came.
        markup = find_markup(seen.thinking, tools.names, plain=not usable)
    if markup is not None:
        seen.note(Condition.markup_left, markup.piece)


def _call(call: ToolCallText, tools: ToolSet | None, seen: Examined) -> ToolCallText:
    """The call with its name and arguments mended, where the server marked or packed them."""
    name, arguments = call.name, call.arguments
    if tools is None or name not in tools.names:
        clean = None if tools is None else clean_name(name, tools.names)
        if clean is None:
            seen.note(Condition.tool_unknown, short(name))
        else:
            seen.note(Condition.tool_name_marked, short(name))
            name = clean
    if not _is_plain_object(arguments):
        arguments = _mended(arguments, seen)
    return call if name is call.name and arguments is call.arguments else ToolCallText(call.id, name, arguments)


def _is_plain_object(arguments: str) -> bool:
    if arguments.count("{") + arguments.count("[") > _MOST_SIMPLE_BRACKETS:
        return arguments_of(arguments) is not None
    try:
        return isinstance(orjson.loads(arguments), dict)
    except ValueError:
        return False


def _bare(arguments: str) -> str:
    """Arguments without a byte order mark before them and special tokens that a parser left behind them."""
    text = arguments.strip(" \n\t\r\ufeff\u200b")
    while text.endswith(">") and (left := _LEFT.search(text, max(0, len(text) - _LONGEST_LEFT))) is not None:
        text = text[: left.start()].rstrip()
    return text if text != arguments.strip() else arguments


def _mended(arguments: str, seen: Examined) -> str:
    inner: Any = _bare(arguments)
    for _ in range(2):
        if inner is None or not inner.strip() or inner.strip() in ("null", "None", "[]"):
            seen.note(Condition.arguments_empty)
            return "{}"
        if arguments_of(inner) is not None:
            if inner != arguments:
                seen.note(Condition.arguments_double)
            return str(inner)
        try:
            inner = orjson.loads(inner)
        except ValueError:
            break
        if not isinstance(inner, str):
            break
    seen.note(Condition.arguments_malformed)
    if is_degenerate(arguments):
        seen.note(Condition.degenerate)
    return arguments


_LEFT = re.compile(r"(?:<[|｜][^<>|｜]{1,40}[|｜]>|</?tool_calls?>|</s>)\Z")
_LONGEST_LEFT = 60
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_MARKS = frozenset(
    re.findall(
        r"\w+",
        "channel commentary analysis final constrain json message functions function tools tool default_api to call "
        "calls start end assistant python_tag recipient sep begin tool_call tool_calls tool_sep tool_call_begin name "
        "invoke api tool_call_end tool_calls_begin tool_call_argument_begin im_start im_end start_function_call user "
        "system code return eot_id eom_id none s",
    )
)
"""Words that templates and gateways put around a tool's name."""
_GLUED = re.compile(r"(?:commentary|analysis|final|json|assistant|code)+\Z")


def clean_name(name: str, offered: frozenset[str]) -> str | None:
    """The offered tool in a name that something stands around; None: there is none, or more than one."""
    words = _WORD.findall(name)
    half = len(name) // 2
    if name[:half] in offered and name == 2 * name[:half]:  # the pieces of a stream put together twice
        return name[:half]
    # special tokens that were taken off leave their words glued to the name
    for parts in (words, [_GLUED.sub("", word) for word in words]):
        found = {part for part in parts if part in offered}
        others = [part for part in parts if part not in offered]
        if len(found) == 1 and all(not part or part.lower() in _MARKS or part.isdecimal() for part in others):
            return min(found)
    return None


def is_degenerate(text: str | None) -> bool:
    """Whether one character or a short cycle makes up over 95% of a text of more than 200 characters."""
    if text is None or len(text) <= _DOUBTFUL_LENGTH:
        return False
    enough = 0.95 * len(text)
    for at in (len(text) // 4, len(text) // 2, 3 * len(text) // 4):
        if text.count(text[at]) > enough:
            return True
        piece = text[at : at + 16]
        period = text.find(piece, at + 1, at + 16 + min(_LONGEST_CYCLE, len(text) // 4)) - at
        if period > 0 and sum(map(eq, text, text[period:])) > 0.95 * (len(text) - period):
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
