"""What the finish reasons of servers and gateways mean; `llm.examine` asks, and the providers as they read answers."""

from __future__ import annotations

import re
from typing import Any

from tau2_fleet.llm.conditions import Condition

CALM = frozenset({"stop", "tool_calls", "end_turn", "tool_use", "stop_sequence", "eos_token", "eos"})
"""Words of a whole answer that nearly all servers use."""
OF_CALLS = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
"""Words that promise a tool call."""
_MEANINGS: dict[Condition, str] = {
    Condition.aborted: "abort aborted cancel cancelled canceled interrupted insufficient_system_resource timeout "
    "unload load shutdown preempted disconnect incomplete_stream queued in_progress",
    Condition.error_inside: "error failed failure network_error server_error internal_error engine_error exception "
    "malformed_function_call malformed_model_output malformed_tool_use unexpected_tool_call "
    "missing_thought_signature too_many_tool_calls",
    Condition.cut: "length max_tokens max_output_tokens max_new_tokens max_completion_tokens model_length limit "
    "model_context_window_exceeded token_limit max_token error_limit max_length",
    Condition.filtered: "content_filter content_filtered refusal guardrail_intervened safety recitation blocklist "
    "prohibited_content spii sensitive error_toxic moderation image_safety language",
    Condition.degenerate: "repetition repetition_detected repetitive_patterns looping_content",
}
_WHOLE = {word: condition for condition, words in _MEANINGS.items() for word in words.split()}
_WORDS: tuple[tuple[Condition | None, str], ...] = (
    (Condition.error_inside, "malformed"),
    (Condition.filtered, "filter filtered policy violation moderation guardrail blocked unsafe safety recitation"),
    (Condition.error_inside, "error fail failed failure exception crash crashed oom memory nan invalid rate quota"),
    (Condition.error_inside, "internal gateway rejected throttled worker abnormal upstream"),
    (Condition.aborted, "abort aborted cancel cancelled canceled interrupted disconnect disconnected connection lost"),
    (Condition.aborted, "timeout time deadline shutdown dead killed terminated evicted preempted incomplete reset"),
    (
        Condition.aborted,
        "unavailable expired overload overloaded closed cache preempt preemption interrupt interruption",
    ),
    (Condition.aborted, "stall stalled hangup suspended migrated migration partial"),
    (None, "stop eos eot eom end done complete completed finished"),
    (Condition.cut, "length truncated truncation token tokens context limit max maximum"),
    (Condition.degenerate, "loop looping repetition repetitive"),
    (Condition.filtered, "risk sensitive harm harmful prohibited"),
)
"""Parts of a finish reason that tell what it means where no whole word above does; the first line with one decides."""
_PARTS = tuple((condition, frozenset(words.split())) for condition, words in _WORDS)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LETTERS = re.compile(r"[a-z]+")


def plain_reason(reason: Any) -> str | None:
    """A finish reason as one word in small letters, whichever form a server gives it; None: it is none."""
    if isinstance(reason, dict):  # SGLang's own form
        reason = reason.get("type")
    if not isinstance(reason, str):
        return None
    if reason in CALM:
        return reason
    word = _HUMP.sub("_", reason.strip()).lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return word.removeprefix("finish_reason_").removeprefix("finishreason_")


def meaning_of(reason: Any) -> Condition | None:
    """What is wrong with an answer that ends for this reason; None: nothing."""
    plain = plain_reason(reason)
    if plain is None or plain in CALM:
        return None
    if plain in _WHOLE:
        return _WHOLE[plain]
    parts = set(_LETTERS.findall(plain))
    return next((condition for condition, telling in _PARTS if not telling.isdisjoint(parts)), None)
