"""A record as a sample of Inspect's log format, version 2 (https://inspect.aisi.org.uk/eval-logs.html)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tau2_fleet.analysis.causes import causes
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.export.conversation import message_text
from tau2_fleet.record.line import UNSEEN_CALLS

Json = dict[str, Any]
SCORE = "reward"
_LIMITS = {
    TerminationReason.max_steps: "message",
    TerminationReason.deadline: "time",
    TerminationReason.context_overflow: "context",
}
"""Endings that Inspect calls limits; all others but an infrastructure error are how a sample may end."""
_LONGEST = 1000
"""Characters of a text in a summary."""


def sample_of(record: Json, prompt: str | None, task: Json | None, max_steps: Any) -> Json:
    """A simulation as an `EvalSample`: the task is the sample, the trial (from 1) the epoch.

    Args:
        prompt: the agent's system prompt.
        task: in the benchmark's form, where it is known.
        max_steps: of the run.
    """
    messages = [_message(message, record["id"], at) for at, message in enumerate(record["messages"])]
    if prompt is not None:
        messages.insert(0, {"id": f"{record['id']}-system", "role": "system", "content": prompt})
    last = next((one for one in reversed(messages) if one["role"] == "assistant"), None)
    model = _model(record)
    sample: Json = {
        "id": record["task_id"],
        "epoch": record["trial"] + 1,
        "input": _wanted(task) or f"{record['domain']}/{record['task_id']}",
        "target": _gold(task),
        "messages": messages,
        "output": {
            "model": model,
            "choices": [] if last is None else [{"message": last, "stop_reason": "stop"}],
            "completion": "" if last is None else _text(last["content"]),
        },
        "scores": _scores(record),
        "metadata": _metadata(record),
        "store": {},
        "events": [],
        "model_usage": usage_by_model(record["calls"]),
        "role_usage": {role: usage_of(used) for role, used in record["usage_by_role"].items()},
        "started_at": utc(record["started"]),
        "completed_at": utc(record["ended"]),
        "total_time": record["duration_s"],
        "working_time": record["duration_s"],
        "uuid": record["id"] or None,
        "attachments": {},
    }
    reason = record["termination_reason"]
    if reason == TerminationReason.infrastructure_error:
        told = record["error"] or reason
        sample["error"] = {"message": told, "traceback": told, "traceback_ansi": told}
    elif reason in _LIMITS:
        most = max_steps if reason == TerminationReason.max_steps and isinstance(max_steps, int) else 0
        sample["limit"] = {"type": _LIMITS[reason], "limit": most, "reason": record["error"] or reason}
    return sample


def summary_of(sample: Json) -> Json:
    """What a list of samples shows of one: `EvalSampleSummary`."""
    same = (
        "id",
        "epoch",
        "model_usage",
        "role_usage",
        "started_at",
        "completed_at",
        "total_time",
        "working_time",
        "uuid",
    )
    summary = {name: sample[name] for name in same}
    summary |= {"input": sample["input"][:_LONGEST], "target": sample["target"][:_LONGEST]}
    summary["metadata"] = {name: part for name, part in sample["metadata"].items() if len(str(part)) < _LONGEST}
    summary["scores"] = {
        name: {part: text[:_LONGEST] if isinstance(text, str) else text for part, text in score.items()}
        for name, score in sample["scores"].items()
    }
    summary |= {"completed": True, "message_count": len(sample["messages"])}
    if "error" in sample:
        summary["error"] = sample["error"]["message"]
    if "limit" in sample:
        summary["limit"] = sample["limit"]["type"]
    return summary


def usage_of(used: Mapping[str, Any]) -> Json:
    """Tokens in Inspect's words."""
    read, written = int(used.get("input_tokens") or 0), int(used.get("output_tokens") or 0)
    cached = used.get("cached_tokens")
    found = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return found | ({"input_tokens_cache_read": cached} if cached else {})


def usage_by_model(calls: list[Json]) -> dict[str, Json]:
    """Tokens of a simulation's calls by model."""
    sums: dict[str, dict[str, int]] = {}
    for call in calls:
        used = call.get("usage")
        if isinstance(used, dict):
            total = sums.setdefault(str(call.get("model")), {})
            for name, tokens in used.items():
                if isinstance(tokens, int):
                    total[name] = total.get(name, 0) + tokens
    return {model: usage_of(used) for model, used in sums.items()}


def utc(local: Any) -> str | None:
    """A record's local time as Inspect wants it; None for what is no time."""
    try:
        return datetime.fromisoformat(local).astimezone(UTC).isoformat()
    except (TypeError, ValueError, OverflowError):
        return None


def _message(message: Json, sample: str, at: int) -> Json:
    """A turn or a tool's answer. A user's own tool calls, which Inspect has no form for, are told in its text."""
    about = message.get("raw_data")
    about = about if isinstance(about, dict) else {}
    role, calls = message.get("role"), message.get("tool_calls") or []
    known = {name: about.get(name) for name in ("author", "conditions") if about.get(name)}
    found: Json = {"id": f"{sample}-{at}", "content": message_text(message)}
    if role == "tool":
        by = message.get("requestor") or "assistant"
        call_id = message.get("id")
        found |= {"role": "tool", "tool_call_id": None if call_id is None else str(call_id)}
        found["metadata"] = {"requestor": by}
        if message.get("error"):
            found["error"] = {"type": "unknown", "message": found["content"]}
        return found
    if role == "assistant":
        found |= {"role": "assistant", "source": "generate"}
        if isinstance(about.get("thinking"), str):
            found["content"] = [
                {"type": "reasoning", "reasoning": about["thinking"]},
                *([{"type": "text", "text": found["content"]}] if found["content"] else []),
            ]
        if calls:
            found["tool_calls"] = [
                {
                    "id": str(call.get("id")),
                    "function": str(call.get("name")),
                    "arguments": call.get("arguments") if isinstance(call.get("arguments"), dict) else {},
                    "type": "function",
                }
                for call in calls
            ]
    else:
        found["role"] = "user"
        if calls:
            lines = [_call(call.get("name"), call.get("arguments")) for call in calls]
            found["content"] = "\n".join([*filter(None, [found["content"]]), *lines])
            known["tool_calls"] = calls
    return found | ({"metadata": known} if known else {})


def _scores(record: Json) -> Json:
    losses = causes(record)
    why = "; ".join(dict.fromkeys(loss.detail or str(loss.cause) for loss in losses))
    reward: Json = {"value": record["reward"], "answer": record["termination_reason"]}
    if why:
        reward["explanation"] = why
    parts = {name: {"value": value} for name, value in record["sub_rewards"].items() if name != SCORE}
    return {SCORE: reward, **parts}


def _metadata(record: Json) -> Json:
    names = ("domain", "trial", "seed", "attempt", "termination_reason", "error", "db_diff", "notes", "replies")
    found = {name: record[name] for name in names if record[name] not in (None, {}, [])}
    losses = causes(record)
    cost = {} if record["notes"].get(UNSEEN_CALLS) else {"cost_usd": sum(record["cost_by_role"].values())}
    return found | ({"cause": str(losses[0].cause)} if losses else {}) | cost


def _model(record: Json) -> str:
    of_agent = (call.get("model") for call in record["calls"] if call.get("role") == "agent")
    return str(next(of_agent, None) or "unknown")


def _wanted(task: Json | None) -> str:
    """What the customer wants, in lines."""
    if task is None:
        return ""
    lines: list[str] = []

    def tell(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for part, inner in value.items():
                tell(inner, str(part))
        elif value:
            lines.append(f"{name}: {value}")

    tell({name: task.get(name) for name in ("user_scenario", "ticket")}, "")
    return "\n".join(lines)


def _gold(task: Json | None) -> str:
    """The expected actions, a line each."""
    criteria = (task or {}).get("evaluation_criteria")
    actions = criteria.get("actions") if isinstance(criteria, dict) else None
    return "\n".join(
        _call(action.get("name"), action.get("arguments")) for action in actions or () if isinstance(action, dict)
    )


def _call(name: Any, arguments: Any) -> str:
    found = arguments if isinstance(arguments, dict) else {}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in found.items())})"


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
