"""What a check came to; all checks of the doctor speak in these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingState(StrEnum):
    """How bad it is."""

    ok = "ok"
    note = "note"
    """Worth knowing; this configuration does not need it."""
    warning = "warn"
    """The run would go, but not as one may expect."""
    problem = "FAIL"
    """The configuration could not run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    state: FindingState
    subject: str
    text: str
    advice: str | None = None
    """What to do about it."""


def ok(subject: str, text: str) -> Finding:
    return Finding(FindingState.ok, subject, text)


def note(subject: str, text: str, advice: str | None = None) -> Finding:
    return Finding(FindingState.note, subject, text, advice)


def warning(subject: str, text: str, advice: str) -> Finding:
    return Finding(FindingState.warning, subject, text, advice)


def problem(subject: str, text: str, advice: str | None = None) -> Finding:
    return Finding(FindingState.problem, subject, text, advice)
