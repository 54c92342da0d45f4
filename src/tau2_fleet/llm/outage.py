"""Tells a refusal that every further call will meet from one that passes, or that is one conversation's own.

`llm.model` asks before each call and tells of each reply and refusal; one `Outage` per model.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field

from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.failures import WAITED_OUT, Failure, FailureCause
from tau2_fleet.llm.types import ChatRequest

log = logging.getLogger(__name__)

GENERAL_SESSIONS = 20
"""Conversations that end by the same refusal, without a success between, after which it is general."""
_SAME_FROM = 3
"""Conversations with the same HTTP 400 before time can make it general."""
_KINDS = 64
"""Different refusals remembered."""
_NEVER_REPLIED = 10
"""Calls in a row that fail alike, the first ones of a model, until it is given up."""
_CHANGING = re.compile(r"\S*\d\S*")
"""Numbers and ids, which differ between refusals that are the same."""


@dataclass(slots=True)
class _Refusals:
    """Like refusals without a success between."""

    since: float
    sessions: set[str] = field(default_factory=set)
    """Those that it has ended."""
    length: int = 0
    """Messages of the shortest history that was refused."""
    with_results: bool = False
    """Every refused history held results of tools."""

    def disproved_by(self, length: int, with_results: bool) -> bool:
        """Whether a reply to such a history shows that these refusals are not general.

        A server that refuses each second turn answers the first ones all the same.
        """
        return length >= self.length and (with_results or not self.with_results)


class Outage:
    """What one model has refused since it last replied."""

    def __init__(self, name: str, clock: Clock, outage_s: float) -> None:
        """A refusal is general once it has lasted `outage_s`; 0: at once."""
        self.open: str | None = None
        """The line that says why no call is made any more."""
        self.outage_s = outage_s
        self._name = name
        self._clock = clock
        self._closed: _Refusals | None = None
        """Of the key, the name, or anything in front of the server."""
        self._refused: dict[str, _Refusals] = {}
        """Of the request itself, by what was said."""
        self._replied = False
        self._last: FailureCause | None = None
        self._same = 0

    def replied(self, request: ChatRequest) -> None:
        """The model has answered."""
        self._replied = True
        self._last, self._same = None, 0
        if self._closed is not None:
            log.warning("%s answers again", self._name)
            self._closed = None
        if self._refused:
            length, with_results = _shape(request)
            self._refused = {
                said: refusals
                for said, refusals in self._refused.items()
                if not refusals.disproved_by(length, with_results)
            }

    def closed(self, line: str) -> bool:
        """Count a refusal that may pass; True: it is general, and `line` is what people are told from now on."""
        now = self._clock.monotonic()
        if self._closed is None:
            self._closed = _Refusals(now)
            if self.outage_s:
                log.warning("%s; it is asked again for %.0f s", line, self.outage_s)
        if now - self._closed.since >= self.outage_s:
            self.open = line
        return self.open is not None

    def failed(self, failure: Failure, request: ChatRequest, line: str) -> bool:
        """Count a call that was given up for this failure; True: every further one would fail alike."""
        if failure.cause is FailureCause.overflow:
            return False
        if failure.cause in WAITED_OUT:
            refusals = self._closed
            if refusals is None:  # others have been answered meanwhile
                return False
            refusals.sessions.add(request.session)
            general = len(refusals.sessions) >= GENERAL_SESSIONS
        elif failure.cause is FailureCause.refused:
            general = self._is_general(failure, request, line)
        else:
            self._same = self._same + 1 if failure.cause is self._last else 1
            self._last = failure.cause
            general = not self._replied and self._same >= _NEVER_REPLIED
        if general:
            self.open = line
        return self.open is not None

    def _is_general(self, failure: Failure, request: ChatRequest, line: str) -> bool:
        now = self._clock.monotonic()
        said = _CHANGING.sub("#", f"{failure.status} {failure}")
        length, with_results = _shape(request)
        refusals = self._refused.get(said)
        if refusals is None:
            log.warning("%s; this ends the conversation", line)
            if len(self._refused) >= _KINDS:
                self._refused.pop(next(iter(self._refused)))
            refusals = self._refused[said] = _Refusals(now, length=length, with_results=with_results)
        refusals.sessions.add(request.session)
        refusals.length = min(refusals.length, length)
        refusals.with_results = refusals.with_results and with_results
        count = len(refusals.sessions)
        return count >= GENERAL_SESSIONS or (count >= _SAME_FROM and now - refusals.since >= self.outage_s)


def _shape(request: ChatRequest) -> tuple[int, bool]:
    return len(request.messages), any(message.role == "tool" for message in request.messages)
