"""Reads a reviewer's answers, and counts its votes: nothing that cannot be read or shown counts as a verdict."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tau2_fleet.analysis.reviews import Effect, ErrorKind, ErrorSource, Mark, Party, Severity, Verdict
from tau2_fleet.review.case import Case
from tau2_fleet.review.rules import verdict_of

_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.S | re.I)
_NEAR = 2
"""Turns by which two votes may differ on where an error is."""
_MOST_ERRORS = 50
_LONGEST = 300


class UnusableAnswer(ValueError):
    """An answer that is no verdict; the message says why."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One usable answer."""

    marks: tuple[Mark, ...]

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.marks)


def read_vote(text: str, name: str, case: Case) -> Vote:
    """The vote in an answer.

    Args:
        name: of the case, which the answer has to repeat: an answer that was copied from a conversation does not.

    Raises:
        UnusableAnswer: it is not the JSON asked for, is about another case, or quotes what nobody said.
    """
    fenced = _FENCED.fullmatch(text)
    try:
        answer = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        raise UnusableAnswer("not the JSON object that was asked for") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("errors"), list):
        raise UnusableAnswer("no list of errors")
    if answer.get("case") != name:
        raise UnusableAnswer("about another case")
    if len(answer["errors"]) > _MOST_ERRORS:
        raise UnusableAnswer(f"more than {_MOST_ERRORS} errors")
    return Vote(tuple(_mark(one, case) for one in answer["errors"]))


def _mark(value: Any, case: Case) -> Mark:
    if not isinstance(value, dict):
        raise UnusableAnswer("an error that is no object")
    try:
        kind, severity, effect = ErrorKind(value["kind"]), Severity(value["severity"]), Effect(value["effect"])
        turn, quote, reason = value["turn"], value["quote"], value["reason"]
    except (KeyError, ValueError, TypeError) as error:
        raise UnusableAnswer(f"an error without {error}" if isinstance(error, KeyError) else str(error)[:100]) from None
    if kind.party is Party.setup or not isinstance(quote, str) or not isinstance(reason, str):
        raise UnusableAnswer("an error of another form")
    turn = int(turn) if isinstance(turn, float) and turn.is_integer() else turn
    if not isinstance(turn, int) or isinstance(turn, bool) or not 0 <= turn < len(case.messages):
        raise UnusableAnswer(f"turn {str(turn)[:20]} is none of the conversation's")
    place = _where(quote, turn, case)
    if place is None:
        raise UnusableAnswer(f"quotes what message {turn} does not say")
    own = Effect.none if kind.party is Party.agent else effect
    return Mark(kind, severity, own, reason[:_LONGEST], place, quote[:_LONGEST], ErrorSource.review, 1)


def _where(quote: str, turn: int, case: Case) -> int | None:
    """The message that says so, at this turn or beside it; only of a message without words may nothing be quoted."""
    wanted = _loose(quote)
    if not wanted:
        return None if _loose(case.text(turn)) else turn
    for place in sorted(range(len(case.messages)), key=lambda one: abs(one - turn))[: 2 * _NEAR + 1]:
        message = case.messages[place]
        calls = json.dumps(message.get("tool_calls") or [], ensure_ascii=False, default=str)
        if wanted in _loose(case.text(place)) or wanted in _loose(calls):
            return place
    return None


def _loose(text: str) -> str:
    """Words alone: blanks, letter case, quotation marks and dots at the ends apart."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the votes on one simulation come to."""

    verdict: Verdict
    """`undecided` where no verdict has more than half of the votes that were asked for."""
    marks: tuple[Mark, ...]
    """Those that more than half of the usable votes have, each with how many."""


def majority(votes: Sequence[Vote], asked: int) -> Counted:
    """The majority of the votes.

    Args:
        asked: votes that were wanted; one that could not be had counts for nothing.
    """
    verdicts = Counter(vote.verdict for vote in votes)
    verdict, most = verdicts.most_common(1)[0] if verdicts else (Verdict.undecided, 0)
    if 2 * most <= asked:
        verdict = Verdict.undecided
    groups = _groups(votes)
    kept = [_merged(group) for group in groups if 2 * len(group) > len(votes)]
    party = {Verdict.customer: Party.customer, Verdict.agent: Party.agent}.get(verdict)
    if party is not None and verdict_of(kept) is not verdict:
        # They agree on whose fault it was, not on what it was: the kind that most of them name.
        own = [group for group in groups if group[0].party is party and verdict_of(group) is verdict]
        kept += [_merged(max(own, key=len))] if own else []
    return Counted(verdict, tuple(sorted(kept, key=lambda mark: mark.turn or 0)))


def _groups(votes: Sequence[Vote]) -> list[list[Mark]]:
    """Marks of different votes that are the same error."""
    groups: list[list[Mark]] = []
    for vote in votes:
        taken: set[int] = set()
        for mark in vote.marks:
            for number, group in enumerate(groups):
                near = abs((group[0].turn or 0) - (mark.turn or 0)) <= _NEAR
                if number not in taken and group[0].kind is mark.kind and near:
                    group.append(mark)
                    taken.add(number)
                    break
            else:
                taken.add(len(groups))
                groups.append([mark])
    return groups


def _merged(group: Sequence[Mark]) -> Mark:
    """One mark of several: what most of them say."""
    severity = Counter(mark.severity for mark in group).most_common(1)[0][0]
    effect = Counter(mark.effect for mark in group).most_common(1)[0][0]
    if any(mark.decides for mark in group) and 2 * sum(mark.decides for mark in group) > len(group):
        severity = Severity.major
        effect = Counter(mark.effect for mark in group if mark.decides).most_common(1)[0][0]
    return replace(group[0], severity=severity, effect=effect, votes=len(group))
