"""What servers say of a prompt that is too long for them; `llm.failures` asks whether an answer says so.

The texts are those of vLLM, llama.cpp, Ollama, LM Studio, SGLang, TGI, TensorRT-LLM, OpenAI, Anthropic, Bedrock,
Gemini, Mistral, xAI, Cerebras and the gateways before them, as they stand in their sources and in public bug reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLEARLY = re.compile(
    r"context_length_exceeded|exceed_context_size|context_window_exceeded|model_context_window|string_above_max_tokens"
    r"|context[ _-]?(?:length|window|limit|size)\b|(?:maximum|max) (?:context|model|prompt|input) length"
    r"|max_model_len|\bn_ctx\b|(?:prompt|input|request|conversation|message)s? (?:is|are|was|were) too (?:long|large)"
    r"|prompt too long|max_new_tokens`? must be|`?inputs`? must have less than"
    r"|too many (?:total |text |input |prompt )*tokens|max_tokens must be at least 1, got (?:-|0\b)"
    r"|(?:input|prompt|token)s?(?: token)? (?:count|length)\b.{0,40}\bexceeds?\b"
    r"|(?:maximum|max) number of (?:input |prompt )?tokens"
    r"|\btokens? exceeds? the (?:configured |model'?s? )?(?:limit|max)"
    r"|model only supports up to \d+|current length is \d+ while limit is|request_too_large"
    r"|\bmax_seq_len\b|\bsession_len\b|model token limit|max message tokens|KV cache size|range of input length"
    r"|number of (?:input |prompt )?tokens \d+ cannot exceed"
    r"|reduce (?:the length of )?(?:the|your) (?:messages|prompt|input)"
    r"|(?:prompt|input) (?:token )?length \(?\d+\)? is (?:greater|longer|larger) than|longer than the specified maximum"
    r"|(?:输入|上下文).{0,6}(?:长度|超)|(?:prompt|提示词|输入)\s?超"
    r"|longer than the (?:maximum|model)|exceeds? (?:the )?(?:model'?s )?(?:available |maximum |max )?context",
    re.IGNORECASE,
)
_NOT_AT_ALL = re.compile(r"rate.?limit|tokens per (?:min|day)|string_above_max_length\b", re.IGNORECASE)
"""Limits of another kind, which some providers word alike."""

_NUMBER = r"(\d[\d,_]{2,12})"
_PROMPT_LIMITS = tuple(
    re.compile(text, re.IGNORECASE)
    for text in (
        rf"available context size \(?{_NUMBER}",
        rf"tokens? > {_NUMBER} maximum",
        rf"`?inputs`? must have less than {_NUMBER}",
        rf"maximum number of (?:input |prompt )?tokens(?: allowed)? \({_NUMBER}",
        rf"model only supports up to {_NUMBER}",
        rf"(?:maximum|max) (?:prompt|input) length(?: is| of)? \(?{_NUMBER}",
        rf"configured limit of {_NUMBER}",
        rf"\"?n_ctx\"?'? ?[:=] ?{_NUMBER}",
        rf"while limit is {_NUMBER}",
        rf"input length should be \[\d+, ?{_NUMBER}\]",
        rf"prompt cannot exceed {_NUMBER}",
        rf"session_len {_NUMBER}",
        rf"context (?:length|window|size) of (?:only )?{_NUMBER}",
    )
)
"""These speak of the prompt alone: how long an answer may be they leave open."""
_TOTAL_LIMITS = tuple(
    re.compile(text, re.IGNORECASE)
    for text in (
        rf"maximum context length ?(?:is|of|:|=)? ?{_NUMBER}",
        rf"context (?:length|window|limit|size)(?: \w+)? (?:is|of|:|=) ?{_NUMBER}",
        rf"context length \({_NUMBER}",
        rf"maximum model length of {_NUMBER}",
        rf"max_model_len\W{{1,3}}{_NUMBER}",
        rf"max_new_tokens`? must be <= {_NUMBER}",
        rf"exceed context limit: [\d,_]+ \+ [\d,_]+ > {_NUMBER}",
        rf"with {_NUMBER} maximum context length",
        rf"maximum allowed length \({_NUMBER}",
        rf"max_seq_len {_NUMBER}",
        rf"max(?:imum)? sequence length(?: of| is)? {_NUMBER}",
        rf"model token limit: {_NUMBER}",
        rf"total tokens limit {_NUMBER}",
        rf"context window limit \({_NUMBER}",
        rf"KV cache size: [\d,_]+ > {_NUMBER}",
        rf"too large for model\. Max size: {_NUMBER} tokens",
        rf"{_NUMBER} (?:tokens )?(?:maximum|max) context",
    )
)
_OVER = re.compile(
    r"must be at least 1, got -?(\d+)|exceeded max context length by (\d+)|(\d+) tokens (?:too long|over the limit)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TooLong:
    """What a server told of a prompt that it refused for its length; tokens, None where it did not say."""

    limit: int | None = None
    prompt_only: bool = True
    """`limit` is for the prompt alone, not for prompt and answer together."""
    over: int | None = None
    """By how much the prompt was too long."""


def too_long(text: str) -> TooLong | None:
    """What the text of a refusal says of the prompt's length; None: it is about something else."""
    if not _CLEARLY.search(text) or _NOT_AT_ALL.search(text):
        return None
    for patterns, prompt_only in ((_TOTAL_LIMITS, False), (_PROMPT_LIMITS, True)):
        for pattern in patterns:
            found = pattern.search(text)
            if found:
                return TooLong(int(re.sub(r"[,_]", "", found[1])), prompt_only)
    over = _OVER.search(text)
    return TooLong(over=next((int(number) for number in over.groups() if number), None) if over else None)
