"""One simulation as the report shows it: turns with author, time and tokens, and what each check says of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tau2_fleet.analysis.causes import causes, writes_by_name
from tau2_fleet.analysis.explain import GoldCheck, gold_checks, turn_of_call
from tau2_fleet.analysis.reviews import Mark, Review, Severity

Json = dict[str, Any]
_LONGEST = 200_000
"""Characters of one text that the page keeps; a longer one is cut and says so."""
_DIFFERENCES = 200
_PRIVATE_NOTES = ("prompt",)


def conversation_of(record: Json, review: Review | None = None) -> Json:
    """What the page needs of a record, in JSON's types.

    `turns` are the messages in order; `losses` the causes of lost reward, `gold` the gold actions, `facts` and
    `assertions` the other checks, `errors` what a review found, each with the index of the turn that shows it where one
    does.
    """
    return {
        "turns": list(_turns(record)),
        "losses": [
            {"cause": str(loss.cause), "title": loss.cause.words, "detail": _cut(loss.detail), "turn": loss.turn}
            for loss in causes(record)
        ],
        "gold": [_gold(record, check) for check in gold_checks(record)],
        "facts": [_fact(record, check) for check in _checks(record, "communicate_checks")],
        "assertions": list(_assertions(record)),
        "errors": [_error(mark) for mark in (review.marks if review is not None else ())],
        "lost_at": None if review is None else review.lost_at,
        "differences": (record.get("db_diff") or [])[:_DIFFERENCES],
        "more_differences": max(len(record.get("db_diff") or []) - _DIFFERENCES, 0),
        "parts": record.get("sub_rewards") or {},
        "basis": _basis(record),
        "notes": {name: note for name, note in (record.get("notes") or {}).items() if name not in _PRIVATE_NOTES},
        "error": _cut(record.get("error")),
        "seed": record.get("seed"),
        "usage": record.get("usage_by_role") or {},
        "cost": record.get("cost_by_role") or {},
    }


def _error(mark: Mark) -> Json:
    return {
        "party": str(mark.party),
        "title": mark.kind.words,
        "meaning": mark.kind.meaning,
        "major": mark.severity is Severity.major,
        "effect": str(mark.effect),
        "detail": _cut(mark.detail),
        "quote": _cut(mark.quote),
        "turn": mark.turn,
        "source": str(mark.source),
        "votes": mark.votes,
    }


def _checks(record: Json, name: str) -> list[Json]:
    found: list[Json] = (record.get("reward_info") or {}).get(name) or []
    return found


def _turns(record: Json) -> Iterator[Json]:
    messages = record.get("messages") or []
    begun = _time(messages[0]) if messages else None
    calls = _calls_by_turn(record)
    for index, message in enumerate(messages):
        now = _time(message)
        raw = message.get("raw_data") if isinstance(message.get("raw_data"), dict) else {}
        own = calls.get(index, [])
        turn: Json = {
            "role": message.get("role"),
            "text": _cut(message.get("content")),
            "calls": [
                {"name": str(call.get("name")), "arguments": call.get("arguments")}
                for call in message.get("tool_calls") or ()
            ],
            "by": message.get("requestor"),
            "error": bool(message.get("error")),
            "author": raw.get("author"),
            "at_s": round((now - begun).total_seconds(), 2) if now and begun else None,
            "thinking": _cut(raw.get("thinking") or "\n\n".join(filter(None, (c.get("thinking") for c in own)))),
            "tokens": message.get("usage"),
            "model_s": round(sum(float(c.get("duration_ms") or 0) for c in own) / 1000, 2) if own else None,
            "marks": sorted({mark for call in own for mark in _marks(call)}),
        }
        yield {name: value for name, value in turn.items() if value not in (None, "", [], False)}


def _marks(call: Json) -> Iterator[str]:
    """Conditions of one reply, and how much of the history was left out before it."""
    yield from map(str, call.get("conditions") or ())
    if call.get("markup"):
        yield "markup_left"
    if call.get("empty"):
        yield "empty"
    if call.get("trimmed_messages"):
        yield f"history_cut: {call['trimmed_messages']} messages"


def _calls_by_turn(record: Json) -> dict[int, list[Json]]:
    """Index of a message to the model calls that made it: turns written by models, in the order of their steps."""
    written = [
        index
        for index, message in enumerate(record.get("messages") or ())
        if message.get("role") in ("assistant", "user") and message.get("usage")
    ]
    by_step: dict[int, list[Json]] = {}
    for call in record.get("calls") or ():
        if call.get("role") != "judge":
            by_step.setdefault(int(call.get("step") or 0), []).append(call)
    return dict(zip(written, (by_step[step] for step in sorted(by_step)), strict=False))


def _gold(record: Json, check: GoldCheck) -> Json:
    closest = sorted(check.nearest, key=lambda call: (call.error, len(check.differing(call))))
    found: Json = {
        "name": check.gold.name,
        "arguments": check.gold.arguments,
        "by": check.gold.requestor,
        "matched": check.matched,
        "matters": writes_by_name(check.gold.name) or "ACTION" in _basis(record),
        "calls": len(check.nearest),
    }
    if closest:
        found |= {"differing": check.differing(closest[0]), "turn": turn_of_call(record, closest[0])}
    elif check.matched:
        found["turn"] = turn_of_call(record, check.gold)
    return found


def _basis(record: Json) -> list[str]:
    found: list[str] = (record.get("reward_info") or {}).get("reward_basis") or []
    return found


def _fact(record: Json, check: Json) -> Json:
    """A fact to tell, and the first of the agent's texts that holds it."""
    wanted = str(check.get("info")).lower()
    turn = next(
        (
            index
            for index, message in enumerate(record.get("messages") or ())
            if message.get("role") == "assistant"
            and wanted in str(message.get("content") or "").lower().replace(",", "")
        ),
        None,
    )
    return {"text": check.get("info"), "met": bool(check.get("met")), "turn": turn}


def _assertions(record: Json) -> Iterator[Json]:
    from tau2_fleet.analysis.explain import assertion_text

    for check in _checks(record, "env_assertions"):
        yield {"text": assertion_text(check), "met": bool(check.get("met"))}
    for check in _checks(record, "nl_assertions"):
        why = check.get("justification")
        yield {"text": check.get("nl_assertion"), "met": bool(check.get("met")), "why": _cut(why)}


def _time(message: Json) -> datetime | None:
    try:
        return datetime.fromisoformat(str(message.get("timestamp")))
    except ValueError:
        return None


def _cut(text: Any) -> str | None:
    if not isinstance(text, str) or len(text) <= _LONGEST:
        return text if isinstance(text, str) else None
    return f"{text[:_LONGEST]}\n… cut here: {len(text):,} characters"
