"""Errors that servers and gateways put into answers with status 200; the providers and `llm.model` ask.

They stand beside the choices, in a choice, in its message, and in place of what the model said.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.finish_reasons import meaning_of

_SPOILT = frozenset({Condition.aborted, Condition.error_inside})
_PAGE = re.compile(r"\s*(?:<!doctype html|<html[\s>]|<\?xml\s)", re.IGNORECASE)
_GATEWAY = re.compile(
    r"\W*(?:(?:http )?(?:error )?(?:5\d\d|429):?\s+(?:service (?:temporarily )?unavailable|too many requests"
    r"|\w+ timed? ?out)"
    r"|(?:(?:http )?(?:error )?5\d\d:?\s+)?(?:internal server error|bad gateway|gateway time-?out|no healthy upstream"
    r"|upstream (?:connect error|request timeout)[^\n]*))\W*",
    re.IGNORECASE,
)
"""What customers say too (`service unavailable`, of a phone) counts only behind a status."""
_LONGEST_LINE = 200
_OF_AN_ERROR = frozenset({"error", "status", "code", "message", "type", "detail", "success", "object", "request_id"})


def error_beside(completion: dict[str, Any], choice: dict[str, Any]) -> Any:
    """An error beside a choice or its message; None: there is none."""
    message = choice.get("message")
    inside = message.get("error") if isinstance(message, dict) else None
    return choice.get("error") or inside or _of_minimax(completion) or error_around(completion)


def _of_minimax(completion: dict[str, Any]) -> Any:
    """MiniMax's error, which stands beside choices too; what its filter took out is none."""
    told = completion.get("base_resp")
    if not isinstance(told, dict) or completion.get("output_sensitive") is True:
        return None
    return told if told.get("status_code") else None


def error_around(completion: dict[str, Any]) -> Any:
    """Words of a gateway around the completion that say that it failed."""
    errors = completion.get("errors")
    failed = (isinstance(errors, list) and bool(errors)) or completion.get("success") is False
    for key in ("code", "status", "status_code"):
        value = completion.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            failed = failed or 400 <= value < 600
        elif value is not None:
            failed = failed or meaning_of(value) in _SPOILT
    if not failed:
        return None
    told = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    return {
        "message": told,
        "code": completion.get("code") or completion.get("status_code") or completion.get("status"),
    }


def further_reasons(completion: dict[str, Any], choice: dict[str, Any]) -> list[Any]:
    """Reasons beside the finish reason, where they say that the answer was broken off."""
    details = choice.get("finish_details")
    found = [choice.get("stop_reason"), completion.get("finish_reason"), completion.get("stop_reason")]
    found.append(details.get("type") if isinstance(details, dict) else None)
    return [reason for reason in found if isinstance(reason, str)]


def is_filtered(choice: dict[str, Any], completion: dict[str, Any]) -> bool:
    """Whether Azure's or MiniMax's filter took something out, whatever finish reason they give."""
    results = choice.get("content_filter_results")
    if isinstance(results, dict) and any(isinstance(one, dict) and one.get("filtered") for one in results.values()):
        return True
    return completion.get("output_sensitive") is True


def error_in_text(text: str | None) -> Any:
    """What a gateway said in the model's place: a page, an error in JSON, its own line; None: the model spoke."""
    if not text:
        return None
    begun = text.lstrip()[:1]
    if begun == "<":
        return {"message": text} if _PAGE.match(text) else None
    if begun == "{":
        return _error_object(text) if '"error"' in text[:_LONGEST_LINE] else None
    return {"message": text} if len(text) <= _LONGEST_LINE and _GATEWAY.fullmatch(text) else None


def _error_object(text: str) -> Any:
    """The error of a body that is nothing else, with a message and a code or type; tools' errors have none."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return None
    error = found.get("error") if isinstance(found, dict) and found.keys() <= _OF_AN_ERROR else None
    return (
        error
        if isinstance(error, dict) and "message" in error and not error.keys().isdisjoint({"code", "type"})
        else None
    )
