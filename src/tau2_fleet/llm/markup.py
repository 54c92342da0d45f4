"""The one table of how models write tool calls, to find those that a server's parser left in a reply.

`llm.examine` asks for every reply to a request with tools, `fleet.pool_check` before a run.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Markup(NamedTuple):
    """A tool call that was found as text."""

    piece: str
    """What gave it away."""
    form: str
    """Whose way of writing calls it is, by vLLM's names of parsers where it has one; empty where several would do."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to write a call."""

    name: str
    marks: str
    """Regular expression; each alternative begins with a sign that talk seldom has, which keeps the search fast."""


_BAR = "[|｜]"
_FORMS = (
    _Form("openai", r"<\|channel\|>\s*commentary|<\|constrain\|>|<\|call\|>|<\|recipient\|>"),
    _Form("deepseek_v32", rf"</?{_BAR}DSML{_BAR}"),
    _Form("deepseek_v3", r"<｜tool[▁_]?(?:calls?|sep|outputs?)|<\|tool▁|<｜function"),
    _Form("kimi_k2", r"<\|tool_calls?_section_(?:begin|end)\|>|<\|tool_call_(?:begin|argument_begin|end)\|>"),
    _Form("deepseek_v3", r"<\|tool_calls_(?:begin|end)\|>|<\|tool_sep\|>"),
    _Form("k2_horizon", r"</?ifm\|(?:tool|arg)"),
    _Form("glm45", r"<arg_key>|<arg_value>|<tool_call>\s*[\w.-]+\s*(?:\n|<arg_key>|</tool_call>)"),
    _Form("qwen3_coder", r"<function=[\w.-]+>?\s*<parameter=|<parameter=[\w.-]+>|<tool_call>\s*<function="),
    _Form("hermes", r"</?tool_calls?\b|</?tool_use>|<tools>\s*[\[{]|</?function_call\b|</?TOOL_CALLS?>"),
    _Form("", r"</?(?:[A-Za-z]+_)?(?i:tool|function)[ _-]?(?i:calls?|use|request)\b"),
    _Form("qwen3_coder", r"<function=[\w.-]*>?|</function>"),
    _Form("minicpm5", r"<function\s?name\s*=|<param\s?name\s*="),
    _Form("minimax_m2", r"</?minimax:tool_call>|</?minimax:"),
    _Form("seed_oss", r"</?seed:tool_call>"),
    _Form("longcat", r"</?longcat_tool_call>"),
    _Form("step3", r"<steptml:"),
    _Form("olmo3", r"<function_calls>\s*\w+\("),
    _Form("minimax_m2", r"</?(?:\w+:)?(?:function_calls|tool_code)>|<\w+:function_call\b|<(?:\w+:)?invoke\s+name\s*="),
    _Form("mistral", r"\[TOOL_CALLS?\]|\[TOOL_REQUEST\]|\[ARGS\]|\[CALL_ID\]|\[/?AVAILABLE_TOOLS\]"),
    _Form("llama3_json", r"<\|python_tag\|>"),
    _Form("llama4_pythonic", r"<\|python_(?:start|end)\|>"),
    _Form("lfm2", r"<\|tool_call_start\|>"),
    _Form("granite", r"<\|tool_call\|>|<\|tool_call>|<tool_call\|>|<\|/tool_call\|>|<\|tool_use"),
    _Form("internlm", r"<\|action_start\|>|<\|plugin\|>|<\|interpreter\|>"),
    _Form("nemotron", r"</?TOOLCALL>"),
    _Form("functiongemma", r"<start_function_call>|<end_function_call>"),
    _Form("cohere_command3", r"<\|START_ACTION\|>|<\|START_TOOL"),
    _Form("apertus", r"<\|tools_(?:prefix|suffix)\|>"),
    _Form("kimi_k3", r"<\|open\|>tools<\|sep\|>"),
    _Form("solar_open", r"<\|tool_call:(?:begin|name|args|end)\|>"),
    _Form("plamo3", r"<\|plamo:begin_tool"),
    _Form("inkling", r"<\|content_invoke_t"),
    _Form("gigachat3", r"<\|function_call\|>"),
    _Form("granite", r"<\|tool_calls\|>"),
    _Form("functionary", r"<\|from\|>assistant|<\|reserved_special_token_249\|>|>>>\s*[A-Za-z_]\w*\s*\n\s*\{"),
    _Form("pythonic", r"```tool_(?:code|call)\b"),
)
_MARKS = re.compile("|".join(form.marks for form in _FORMS))
"""Without groups: the search then runs from one sign to the next."""
_BARE_CALL = re.compile(r"\s*\[?\s*\{\s*\"name\"\s*:\s*\"[\w.-]{1,64}\"\s*,\s*\"(?:arguments|parameters)\"\s*:")
"""A text that is a call and nothing else, of whichever tool."""
_NOTHING_ELSE = re.compile(
    r"\s*(?:```(?:json)?\s*)?[\[{]\s*(?:\{\s*)?\"\w{1,64}\"\s*:.*[\]}]\s*(?:```\s*)?\Z", re.DOTALL
)
"""Or the arguments of one: nobody says JSON to a customer."""
_BROKEN_OFF = re.compile(
    r"\{[^{}]*\"(?:name|tool_name|function|tool|action)\"\s*:\s*\"[\w.-]*\Z|\A\s*\{\s*\"(?:arguments|parameters)\"\s*:"
)
"""A call that ends in its name, or begins with its arguments."""
_SHORT, _LINES_OF_A_CALL = 200, 2
"""Characters within which a call that is nothing but lines has so many ends of lines."""
_IN_WORDS = (
    ("functions.", _Form("openai", r"to=functions\.\w")),
    ("commentary", _Form("openai", r"assistant\s?commentary\s*(?:to=|json\s*\{)|commentary to=\w")),
    ("functools", _Form("phi4_mini_json", r"functools\s*\[")),
    ("✿", _Form("qwen-agent", r"✿FUNCTION✿")),
    ("DSML", _Form("deepseek_v32", r"DSML\W")),
    ("to=", _Form("openai", r"\bassistant to=\w")),
    ("role_sep", _Form("gigachat3", r"function call<\|role_sep\|>")),
)
"""Forms that begin with a word, behind the word without which there is none of them."""


def find_markup(text: str | None, names: Collection[str] = (), *, plain: bool = True) -> Markup | None:
    """The first sign of a tool call in a text; None: there is none.

    Args:
        names: the tools that were offered: calls without any tags are told from talk by them.
        plain: False: only tags, for text that may well speak of tools, such as thinking.
    """
    if not text or not _may_hold_a_call(text):
        return None
    found = _found(text, names, plain)
    if found is None and (written := _written_plainly(text)) != text:
        return _found(written, names, plain)
    return found


def _found(text: str, names: Collection[str], plain: bool) -> Markup | None:
    marked = _marked(text)
    if marked is not None or not names or not plain:
        return marked
    return _plain_call(text, frozenset(names))


_WIDE = str.maketrans("＜＞｛｝（）：，＝“”【】", '<>{}():,=""[]')


def _written_plainly(text: str) -> str:
    """A text as it was before a gateway escaped it for HTML or JSON, and with plain signs for wide ones."""
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = text.replace('\\"', '"').replace("\\n", "\n").replace("\\u003c", "<").replace("\\u003e", ">")
    return text if text.isascii() else text.translate(_WIDE)


def form_of(piece: str) -> str:
    """Whose form the `piece` of a `Markup` is, told from it alone; empty where it could be anybody's."""
    marked = _marked(piece)
    if marked is not None:
        return marked.form
    return "pythonic" if "(" in piece else "llama3_json" if ":" in piece and '"' in piece else ""


def _marked(text: str) -> Markup | None:
    """A call that tags or words of some model's format give away."""
    # each text that holds a mark holds one of these
    signed = "<" in text or "[" in text or "`" in text or ">>>" in text
    found = _MARKS.search(text) if signed else None
    if found is not None:
        form = next(form for form in _FORMS if re.compile(form.marks).match(text, found.start()))
        return Markup(" ".join(found.group().split()), form.name)
    for word, form in _IN_WORDS:
        if word in text and (said := re.search(form.marks, text)) is not None:
            return Markup(" ".join(said.group().split()), form.name)
    return None


def _may_hold_a_call(text: str) -> bool:
    """A few scans before any search: every reply comes here."""
    return (
        "<" in text
        or "{" in text
        or "(" in text
        or "[" in text
        or "to=" in text
        or '="' in text
        or "DSML" in text
        or ">>>" in text
        or "Action" in text
        or "&lt;" in text
        or "＜" in text
        or "\\u003c" in text
        or "✿" in text
        or "｛" in text
        or "：\n" in text
        or " --" in text
        or ":\n" in text
        or text.count("\n", 0, _SHORT) >= _LINES_OF_A_CALL
    )


def _plain_call(text: str, names: frozenset[str]) -> Markup | None:
    if "{" in text:
        for bare in (_BARE_CALL.match(text), _BROKEN_OFF.search(text), _NOTHING_ELSE.match(text)):
            if bare is not None:
                return Markup(" ".join(bare.group().split())[:80], "llama3_json")
    if not any(name in text for name in names):
        return None
    for form, pattern in _patterns(names):
        found = pattern.search(text)
        if found is not None:
            return Markup(" ".join(found.group().split())[:80], form)
    return None


@lru_cache(maxsize=64)
def _patterns(names: frozenset[str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """How calls of these tools look without any tags."""
    one_of = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    name = rf"(?:functions?[./]|tools?\.|default_api[.:])?(?:{one_of})(?::\d+)?"
    quote = r"\\?[\"'“”]"
    keys = "name|func(?:tion)?|(?:function|tool|recipient|api)_?[nN]ame|tool|tool_call|action|api|method|call"
    label = r"(?:[Tt]ool|[Ff]unction|[Cc]all|[Tt]ool[ _][Cc]all)s?:?"
    called = r"(?:\.call)?\s?"
    told = (
        r"`?(?:(?!\b(?:return|gave|give|said|say|show|found|got|result|respon|output|answer|tells?\b))[^\n{.!?;]){0,40}"
    )
    inputs = "(?:[Aa]rguments|[Pp]arameters|[Pp]arams|[Aa]rgs|[Ii]nput)"
    forms = (
        ("llama3_json", rf"\{{\s*{quote}type{quote}\s*:\s*{quote}function{quote}[^}}]{{0,40}}{name}{quote}"),
        ("llama3_json", rf"{quote}(?:{keys}){quote}\s*:\s*(?:{quote})?{name}(?:{quote})?\s*[,}}]"),
        ("llama3_json", rf"\{{\s*{quote}{name}{quote}\s*:\s*[\[{{]|{quote}{name}{quote}\s*,\s*\{{"),
        ("pythonic", rf"(?:^|[\[`,]|tool_code\n)\s*(?:print\(\s*|await\s+)?{name}{called}\(\s*(?:\w+\s*=|\{{|\))"),
        ("", rf"^\s*(?:\*\*)?Action:(?:\*\*)?\s*`?{name}\b|\bto={name}\b"),
        ("pythonic", rf"(?<!\w){name}(?:\.call)?\(\s*(?:\w+\s*=|{quote}|[\[{{\d])"),
        ("", rf"^\W*(?:{keys}|{label})\W{{1,6}}{name}\W*\n\W*(?:{inputs}\b|\{{)"),
        ("llama3_json", rf"(?:\{{|\b)\s*(?:{keys})\s*:\s*(?:{quote})?{name}(?:{quote})?\s*,\s*(?:{quote})?{inputs}\b"),
        ("llama3_json", rf"\{{\s*(?:{keys})\s*:\s*{quote}{name}{quote}"),
        ("llama3_json", rf"{name}{quote}\s*,\s*{quote}{inputs}{quote}\s*:"),
        ("", rf"{name}`?[^\n]{{0,40}}\n+```(?:json)?\s*\{{|{name}`?\s+(?:with|using)\b[^\n]{{0,30}}\{{"),
        ("", rf"(?<![\w\"'.]){name}{told}(?:\n[^\n{{.!?;]{{0,20}})?\{{\s*(?:\}}|{quote})"),
        ("", rf"(?<![\w\"'.]){name}\s+--[a-z]"),
        ("pythonic", rf"(?<!\w){name}\(\s*\w*\s*\Z"),
        ("llama3_json", rf"\{{\s*{quote}(?:{keys}){quote}\s*:\s*(?:{quote})?{name}\s*\Z"),
        ("functionary", rf"^\W*(?:<\|\w+\|>)?(?:assistant)?\s*{name}[`*\s:|,>-]*(?:json)?\s*\{{\s*(?:\}}|{quote})"),
        ("", rf"(?<![\w\"']){name}\s?\{{\s*(?:\}}|{quote}|\w+\s*:)"),
        ("qwen3_coder", rf"<(?:\w+:)?(?:{name})(?:\s+\w+=|\s*/?>)"),
        ("", rf"<(?:{keys}|invoke)>\s*{name}\s*</|\b(?:name|tool|function)\s*=\s*{quote}{name}{quote}"),
        ("", rf"<tool_name>\s*{name}\b|\[(?:[A-Z][a-z]+ )?{label}\s*{name}\b|\[{name}\]\s*\(?\s*[\{{(]"),
        ("", rf"^\W*{name}\s+\w+\s*=\s*{quote}"),
        ("glm45", rf"\A\s*{name}\n[a-z]+_\w+\n"),
    )
    return tuple((form, re.compile(pattern, re.MULTILINE)) for form, pattern in forms)
