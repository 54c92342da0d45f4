"""Tells a model's thinking from what it says: thinking in the text is cut out of the reply, and kept.

Called for every reply by `llm.examine`. Servers leave thinking in the text where their reasoning parser is off or
does not fit, and some strip the special tokens and leave the words.
"""

from __future__ import annotations

import re

_NAMES = (
    r"(?:[\w.-]{1,20}[:_|])?(?:ant)?think(?:ing|_fast|_faster)?(?:_mode)?(?::[\w.-]{1,20})?|(?:inner_)?thoughts?"
    r"|reason(?:ing)?(?:_content)?|scratch_?pad|(?:self_)?reflection|analysis|cot|chain_of_thought|deliberation"
    r"|(?:inner|internal)_(?:monologue|thinking|thoughts?)|(?:thinking|thought|reasoning)_process|tool_plan"
    r"|(?:思考|推理)(?:过程)?"
)
_TOKENS = r"think(?:ing)?|thoughts?|reasoning|inner|cot"
"""What special tokens call thinking; `begin_of_` or `_start` say which end of it they are."""
_OPEN = (
    rf"<\s?(?:{_NAMES})(?:\s[^<>]{{0,60}})?>|&lt;(?:{_NAMES})&gt;|(?-i:\[(?:THINK(?:ING)?|REASONING|THOUGHTS?)\])|◁think▷"
    r"|<unused94>(?:thought)?|<SPECIAL_69>|<(?:thinking|thought|reasoning)_(?:start|begin)>|【(?:思考|推理)(?:过程)?】"
    r"|(?:<\|begin\|>\s*assistant\s*)?"
    rf"<[|｜](?:(?:begin|start)[_▁](?:of[_▁])?)?(?:{_TOKENS})(?:_(?:start|begin|prefix))?[|｜]>"
    r"|<\|channel>\s*(?:thought|analysis)|<\|open\|>\s*think\s*<\|sep\|>|<\|plamo:begin_think:plamo\|>"
)
_CLOSE = (
    rf"<\s?/\s?(?:{_NAMES})\s?>|<(?:{_NAMES})\s?/>|&lt;/(?:{_NAMES})&gt;|\[/(?:THINK(?:ING)?|REASONING|THOUGHTS?)\]"
    r"|◁/think▷|<unused95>|<SPECIAL_70>|<(?:thinking|thought|reasoning)_end>|【/(?:思考|推理)(?:过程)?】"
    rf"|<[|｜](?:/|end[_▁](?:of[_▁])?)(?:{_TOKENS})[|｜]>|<[|｜](?:{_TOKENS})_(?:end|suffix)[|｜]>"
    r"|<channel\|>|<\|close\|>\s*think\s*<\|sep\|>|<\|plamo:end_think:plamo\|>"
    r"|<\|end\|>\s*(?:<\|begin\|>\s*assistant\s*)?<\|content\|>"
)
_OPENING = re.compile(_OPEN, re.IGNORECASE)
_CLOSING = re.compile(_CLOSE, re.IGNORECASE)
_WRAPPER = re.compile(
    r"\s*(?:<(answer|response|final|final_answer|output|solution|assistant)>(.*?)(?:</\1>|\Z)"
    r"|<\|(?:begin_of_solution|begin_of_box|start_response|start_text|content_text)\|>(.*?)(?:<\|[a-z_]+\|>|\Z))\s*\Z",
    re.DOTALL | re.IGNORECASE,
)
"""What some models put around their answer once they have thought."""

_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(\w+)([^<]*)(?:<\|constrain\|>\s*\w*\s*)?<\|message\|>"
)
_BROKEN_CHANNEL = re.compile(r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(analysis|commentary|final)()")
"""The same where a template has lost the end of the channel's name."""
_LOST_CHANNEL = re.compile(
    r"(?:\A\s*|<\|end\|>\s*(?:<\|start\|>\s*)?(?:assistant\s*)?)(analysis|commentary|final)()<\|message\|>"
)
"""The same where it has lost the channel's own token."""
_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>(?:\s*assistant)?\s*")
_BARE_FINAL = re.compile(r"assistant\s?final(?!ly\b|i[sz]e)")
_BARE_ANALYSIS = re.compile(r"\s*(?:assistant\s?)?(?:analysis(?=[^a-z])|commentary(?=[A-Z]))")
_BARE_CALL = re.compile(r"assistant\s?commentary(?:\s*to=|\s)|(?:commentary\s+)?to=functions\.")
_DETAILS = re.compile(r"<details\s[^<>]{0,60}reasoning[^<>]{0,60}>(.*?)(?:</details>|\Z)", re.DOTALL)
"""How gateways fold thinking up for people."""
_TO_ITSELF = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?to=self<\|message\|>(.*?)(?:<\|e[ou][mt]\|>|\Z)"
    r"|(?:<\|message_model\|>)?<\|content_thinking\|>(.*?)(?:<\|end_message\|>|(?=<\|content_(?!thinking))|\Z)",
    re.DOTALL,
)
"""Messages to nobody: their ends are those of other messages, too."""
_FENCE = re.compile(r"```(?:think(?:ing)?|thoughts?|reasoning)[ \t]*\n(.*?)(?:\n```[ \t]*\n?|\Z)", re.DOTALL)
_PROSE = re.compile(
    r"\s*Here(?:'s| is| are) my (?:thought process|reasoning steps):(.*?)"
    r"(?:Here(?:'s| is) my response:|\[BEGIN FINAL RESPONSE\])(.*?)(?:\[END FINAL RESPONSE\]\s*)?\Z",
    re.DOTALL,
)


def split(text: str | None, thinking: str | None) -> tuple[str | None, str | None]:
    """Text without thinking, and all thinking: the server's own field first, then what stood in the text.

    A block that is never closed reaches to the end; one that is never opened (chat templates open it
    in the prompt) reaches from the beginning to the last closing. Text without any thinking is returned as it is.
    """
    said, thoughts = cut(text)
    if thoughts is None:
        return unwrapped(text).lstrip() if text and thinking else text, thinking or None
    return said, "\n".join(part for part in (thinking, *thoughts) if part) or None


def cut(text: str | None) -> tuple[str | None, list[str] | None]:
    """Text without the thinking in it, and that thinking piece by piece; None: there was none."""
    if not text or not _may_think(text):
        return text, None
    thoughts: list[str] = []
    said = _without_channels(_without_prose(text, thoughts), thoughts)
    said = _without_blocks(said, thoughts)
    if said is text:
        return text, None
    return unwrapped(said).strip(), [thought for part in thoughts if (thought := part.strip())]


def unwrapped(text: str) -> str:
    """An answer without the tags that some models put around what they say once they have thought."""
    found = _WRAPPER.match(text) if "<" in text else None
    return text if found is None else found[2] or found[3] or ""


def _may_think(text: str) -> bool:
    """Whether it is worth while to look closer; a few scans, because every reply comes here."""
    return (
        "<" in text
        or "[" in text
        or "```" in text
        or "assistant" in text
        or "◁" in text
        or "【" in text
        or "&lt;" in text
        or text.lstrip()[:8] in ("analysis", "Here is ", "Here are", "Here's m", "commenta")
    )


def _without_prose(text: str, thoughts: list[str]) -> str:
    if "<details" in text and (folded := _DETAILS.findall(text)):
        thoughts += folded
        return _DETAILS.sub("", text)
    if "```" in text and (fenced := _FENCE.findall(text)):
        thoughts += fenced
        return _FENCE.sub("", text)
    if "<|" in text and (alone := _TO_ITSELF.findall(text)):
        thoughts += ["".join(groups) for groups in alone]
        return _TO_ITSELF.sub("", text)
    before, opening, rest = text.partition("<|reasoning|>")
    thought, closing, after = rest.partition("<|response|>") if opening else ("", "", "")
    if closing and "<|/reasoning|>" not in thought and "<|reasoning_end|>" not in thought:
        thoughts.append(thought)
        return before + after
    found = _PROSE.match(text)
    if found is None:
        return text
    thoughts.append(found[1])
    return found[2]


def _without_channels(text: str, thoughts: list[str]) -> str:
    """What harmony's final channel says, with its special tokens or without; calls in another channel stay text."""
    marks = list(_CHANNEL.finditer(text)) or list(_BROKEN_CHANNEL.finditer(text))
    marks = marks or list(_LOST_CHANNEL.finditer(text))
    if marks:
        return _of_channels(text, marks, thoughts)
    final = _last(_BARE_FINAL, text)
    begun = _BARE_ANALYSIS.match(text)
    if final is not None and (begun is not None or final.group() == "assistantfinal"):
        thoughts.append(_BARE_ANALYSIS.sub("", text[: final.start()], count=1))
        return text[final.end() :]
    if begun is None or text[begun.end() : begun.end() + 1].isspace():
        return text
    call = _BARE_CALL.search(text, begun.end())
    end = len(text) if call is None else call.start()
    thoughts.append(text[begun.end() : end])
    return text[end:]


def _of_channels(text: str, marks: list[re.Match[str]], thoughts: list[str]) -> str:
    before = _ENDS.sub("", text[: marks[0].start()]).strip()
    said = [before] if before and marks[0][1] != "final" else []
    if before and not said:
        thoughts.append(before)
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        part = text[mark.end() : len(text) if following is None else following.start()]
        if "to=" in mark[2] or "to=" in text[max(0, mark.start() - 40) : mark.start()]:
            said.append(mark.group() + part)
        elif mark[1] == "final":
            said.append(_ENDS.sub("", part))
        else:
            thoughts.append(_ENDS.sub("", part))
    return "\n".join(said)


def _without_blocks(text: str, thoughts: list[str]) -> str:
    """The text without what stands between tags; what comes before a closing that nothing opened is thinking too."""
    said: list[str] = []
    blocks: list[str] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        closing = _CLOSING.search(text, opening.end())
        said.append(text[at : opening.start()])
        blocks.append(text[opening.end() : len(text) if closing is None else closing.start()])
        at = len(text) if closing is None else closing.end()
    rest = "".join(said) + text[at:] if blocks else text
    last = _last(_CLOSING, rest)
    if last is not None:
        thoughts.append(_CLOSING.sub("\n", rest[: last.start()]))
        rest = rest[last.end() :]
    thoughts += blocks
    return rest


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found
