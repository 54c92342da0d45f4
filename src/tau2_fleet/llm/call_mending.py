"""Takes off a tool call what templates, parsers and gateways put around its name and arguments; for `llm.examine`."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import orjson

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.message_views import arguments_of

_MOST_SIMPLE_BRACKETS = 50
_MOST_WRAPPINGS = 3
_LONGEST_NAME = 1000
"""Characters of what can be a tool's name with something around it."""
_OF_CALLS = frozenset({"name", "function", "arguments", "parameters", "type", "id"})
_NOTHING = frozenset({"", "null", "None", "[]", "undefined"})
"""What stands for no arguments at all."""

_TOKEN = r"<[|｜][^<>|｜]{1,40}[|｜]>"
_BEHIND = re.compile(
    rf"(?:{_TOKEN}|</?(?:tool_calls?|function|function_call|invoke)>|\[/?TOOL_CALLS?\]|</s>|<eos>|<end_of_turn>|<0x[0-9A-F]{2}>)\Z"
)
_BEFORE = re.compile(
    rf"(?:(?:{_TOKEN}|</?(?:tool_calls?|function|function_call)>|\[ARGS\])\s*|json\s*(?=[<{{]))+", re.IGNORECASE
)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_LONGEST_LEFT = 60
_INSIDE = re.compile(rf"{_TOKEN}|</?(?:parameter|arg_key|arg_value|tool_calls?|function_calls?|invoke)\b")
_DECODER = json.JSONDecoder()
_NO_PIECE = re.compile(r"null|\"\"|\s+")

_WORD = re.compile(r"[A-Za-z0-9_-]+")
_TAGS = re.compile(r"<[^<>\s]{1,40}>")
_MARKS = frozenset(
    re.findall(
        r"\w+",
        "channel commentary analysis final constrain json message functions function tools tool default_api to call "
        "calls start end assistant python_tag recipient sep begin tool_call tool_calls tool_sep tool_call_begin name "
        "invoke api tool_call_end tool_calls_begin tool_call_argument_begin im_start im_end start_function_call user "
        "system code return eot_id eom_id none s n",
    )
)
"""Words that templates and gateways put around a tool's name."""
_GLUED = re.compile(r"(?:commentary|analysis|final|json|assistant|code)+\Z")
_JOINED = re.compile(r"(?:functions?_|tools?_|default_api_)?(.+?)(?:_\d+)?\Z")
"""`functions.NAME:0` in the letters that a gateway allows."""


def clean_name(name: str, offered: frozenset[str]) -> str | None:
    """The offered tool in a name that something stands around; None: there is none, or more than one."""
    if len(name) > _LONGEST_NAME:
        return None
    if "&" in name:
        name = html.unescape(name)
    words = _WORD.findall(name)
    half = len(name) // 2
    if name[:half] in offered and name == 2 * name[:half]:  # the pieces of a stream put together twice
        return name[:half]
    # special tokens that were taken off leave their words glued to the name; others are of no known words
    for parts in (words, [_GLUED.sub("", word) for word in words], _WORD.findall(_TAGS.sub(" ", name))):
        found = {part for part in parts if part in offered}
        others = [part for part in parts if part not in offered]
        if len(found) == 1 and all(not part or part.lower() in _MARKS or part.isdecimal() for part in others):
            return min(found)
    joined = _JOINED.match(name)
    return joined[1] if joined is not None and joined[1] in offered else None


def taken_apart(name: str, offered: frozenset[str]) -> tuple[str, str] | None:
    """An offered tool and its arguments, both in what a parser took for the name alone; None: it holds no call."""
    tool, _, rest = name.partition("{")
    arguments = "{" + rest
    clean = clean_name(tool, offered)
    return None if clean is None or arguments_of(arguments) is None else (clean, arguments)


def mend_arguments(name: str, arguments: str) -> tuple[str, Condition | None]:
    """The arguments of a call to `name` as a JSON object where they are one in some wrapping, and what was wrong.

    Arguments that are none stay as they are, and are `arguments_malformed`.
    """
    if _is_plain_object(arguments):
        inner = _of_whole_call(name, arguments) if f'"{name}"' in arguments else None
        return (arguments, None) if inner is None else (inner, Condition.arguments_double)
    text: Any = _bare(arguments)
    for _ in range(_MOST_WRAPPINGS):
        if text is None or text.strip() in _NOTHING:
            return "{}", Condition.arguments_empty
        if arguments_of(text) is not None:
            return str(text), None if text == arguments else Condition.arguments_double
        try:
            text = orjson.loads(text)
        except ValueError:
            text = _unescaped(text) or _repeated(text)
        if not isinstance(text, str):
            break
    return arguments, Condition.arguments_malformed


def marks_inside(arguments: str) -> str | None:
    """A special token or tag that a parser left in a value; None: there is none."""
    found = _INSIDE.search(arguments) if "<" in arguments else None
    return None if found is None else found.group()


def _is_plain_object(arguments: str) -> bool:
    if arguments.count("{") + arguments.count("[") > _MOST_SIMPLE_BRACKETS:
        return arguments_of(arguments) is not None
    try:
        return isinstance(orjson.loads(arguments), dict)
    except ValueError:
        return False


def _of_whole_call(name: str, arguments: str) -> str | None:
    """The arguments in `{"name": NAME, "arguments": {…}}`, which some parsers hand on whole."""
    whole = orjson.loads(arguments)
    if isinstance(whole.get("function"), dict) and whole.keys() <= {"function", "type", "id"}:
        whole = whole["function"]
    if name not in (whole.get("name"), whole.get("function")) or not whole.keys() <= _OF_CALLS:
        return None
    inner = whole.get("arguments", whole.get("parameters"))
    if isinstance(inner, str) and arguments_of(inner) is not None:
        return inner
    return orjson.dumps(inner).decode() if isinstance(inner, dict) else None


def _bare(arguments: str) -> str:
    """Arguments without a byte order mark and special tokens that a parser left before and behind them."""
    text = arguments.strip(" \n\t\r\x00\ufeff\u200b")
    begun = _BEFORE.match(text)
    if begun is not None:
        text = text[begun.end() :]
    fenced = _FENCE.fullmatch(text) if text.startswith("```") else None
    if fenced is not None:
        text = fenced[1]
    while text.endswith((">", "]")) and (left := _BEHIND.search(text, max(0, len(text) - _LONGEST_LEFT))) is not None:
        text = text[: left.start()].rstrip()
    return text if text != arguments.strip() else arguments


def _unescaped(text: str) -> str | None:
    """The object in text that was encoded twice and lost its quotes on the way, or that was made fit for HTML."""
    if "&quot;" in text and '"' not in text:
        return html.unescape(text)
    if not text.startswith('{\\"'):
        return None
    try:
        found = orjson.loads(f'"{text}"')
    except ValueError:
        return None
    return str(found)


def _repeated(text: str) -> str | None:
    """The object in text where a stream's pieces were put together wrongly: nothing beside it, or it comes twice."""
    found: dict[str, Any] = {}
    whole, at, times = "{}", 0, 0
    while at < len(text) and times <= _MOST_SIMPLE_BRACKETS:
        piece = _NO_PIECE.match(text, at)
        if piece is not None:
            at, times = piece.end(), times + 1
            continue
        begun = at
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or (value and found and value != found):
            return None
        if value:
            found, whole = value, text[begun:at]
        times += 1
    return whole if at == len(text) and times > 1 else None
