"""What a review says of a simulation, as `reviews.jsonl` holds it: whose error at which turn, and what it did.

`review/` writes it; the report, comparisons and whoever else shows reviews read it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tau2_fleet.record.line import SimulationKey, decode_line
from tau2_fleet.record.reading import read_object
from tau2_fleet.regular import lines_of, open_file

REVIEWS_FILE = "reviews.jsonl"
"""One line a simulation, in a run directory."""
SCORES_FILE = "review.json"
"""What they come to: the raw and the corrected score."""

Json = dict[str, Any]


class Party(StrEnum):
    """Who made an error."""

    customer = "customer"
    agent = "agent"
    setup = "setup"
    """Neither: what the run was made of."""


class ErrorKind(StrEnum):
    """What an error is; the closed set that rules and reviewers choose from."""

    wrong_value = "wrong_value"
    forgotten_fact = "forgotten_fact"
    refused_confirmation = "refused_confirmation"
    early_stop = "early_stop"
    left_out_step = "left_out_step"
    agents_work = "agents_work"
    off_scenario = "off_scenario"
    wrong_argument = "wrong_argument"
    skipped_step = "skipped_step"
    policy_breach = "policy_breach"
    false_claim = "false_claim"
    untold_fact = "untold_fact"
    needless_transfer = "needless_transfer"
    tool_missing = "tool_missing"
    other_customer = "other_customer"
    other_agent = "other_agent"

    @property
    def party(self) -> Party:
        """Whose error it is."""
        return _KINDS[self].party

    @property
    def words(self) -> str:
        """For people, in a few words."""
        return _KINDS[self].words

    @property
    def meaning(self) -> str:
        """For people and for reviewers, in a sentence."""
        return _KINDS[self].meaning


class _About(NamedTuple):
    party: Party
    words: str
    meaning: str


_KINDS = {
    ErrorKind.wrong_value: _About(
        Party.customer,
        "wrong value",
        "The customer gave a value that neither its scenario holds nor anybody told it.",
    ),
    ErrorKind.forgotten_fact: _About(
        Party.customer,
        "forgotten fact",
        "The customer was asked for something that its scenario holds, and never said it.",
    ),
    ErrorKind.refused_confirmation: _About(
        Party.customer,
        "refused confirmation",
        "The customer refused what its scenario wants, when the agent asked to confirm it.",
    ),
    ErrorKind.early_stop: _About(
        Party.customer,
        "ended early",
        "The customer ended the conversation while something that it wants was outstanding.",
    ),
    ErrorKind.left_out_step: _About(
        Party.customer,
        "left out a step",
        "The customer was asked to do something on its own side, and did not or not as asked.",
    ),
    ErrorKind.agents_work: _About(
        Party.customer,
        "did the agent's work",
        "The customer spoke or acted as the agent, or knew what only the agent can look up.",
    ),
    ErrorKind.off_scenario: _About(
        Party.customer,
        "left its scenario",
        "The customer asked for something, or behaved in a way, that its scenario does not have.",
    ),
    ErrorKind.other_customer: _About(
        Party.customer, "other error of the customer", "The customer erred in another way."
    ),
    ErrorKind.wrong_argument: _About(
        Party.agent, "wrong argument", "The agent made a needed call with a wrong argument of its own."
    ),
    ErrorKind.skipped_step: _About(
        Party.agent, "skipped step", "The agent left out an action that the customer's request needs."
    ),
    ErrorKind.policy_breach: _About(
        Party.agent,
        "policy breach",
        "The agent did what the policy or the request does not allow, such as a change that nobody needed.",
    ),
    ErrorKind.false_claim: _About(
        Party.agent, "false claim", "The agent said that something was done, or is so, and it was not."
    ),
    ErrorKind.untold_fact: _About(
        Party.agent, "fact not told", "The agent never told the customer a fact that it should have told."
    ),
    ErrorKind.needless_transfer: _About(
        Party.agent, "needless transfer", "The agent passed the customer on to a human without need."
    ),
    ErrorKind.other_agent: _About(Party.agent, "other error of the agent", "The agent erred in another way."),
    ErrorKind.tool_missing: _About(
        Party.setup, "tool missing", "A needed action's tool was not among those that its side was offered."
    ),
}


class Severity(StrEnum):
    """How much an error weighs."""

    minor = "minor"
    major = "major"
    """It can decide the outcome by itself."""


class Effect(StrEnum):
    """What an error did to the agent's chance of success."""

    hindered = "hindered"
    helped = "helped"
    none = "none"


class ErrorSource(StrEnum):
    """Who found an error."""

    rules = "rules"
    """Deterministic, from record and task."""
    review = "review"
    """A model, by the majority of its votes."""


class Verdict(StrEnum):
    """Of one simulation."""

    customer = "customer"
    """A major error of the customer: the simulation says nothing of the agent."""
    agent = "agent"
    """None of those, but a major one of the agent."""
    setup = "setup"
    nobody = "nobody"
    undecided = "undecided"
    """The reviewer was asked and gave no verdict: no usable answer, or votes that are even."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One error."""

    kind: ErrorKind
    severity: Severity
    effect: Effect
    detail: str
    """What exactly, in a line for people."""
    turn: int | None = None
    """Index of the message that shows it; None where no message does."""
    quote: str = ""
    """The words of that message that show it."""
    source: ErrorSource = ErrorSource.rules
    votes: int = 0
    """Of a reviewer: how many of its votes have it."""

    @property
    def party(self) -> Party:
        return self.kind.party

    @property
    def decides(self) -> bool:
        """Whether it is an error of the customer for which a simulation is left out."""
        return self.party is Party.customer and self.severity is Severity.major and self.effect is not Effect.none

    def as_dict(self) -> Json:
        """Ready for JSON."""
        return {"party": str(self.party)} | {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Review:
    """What was found in one simulation."""

    key: SimulationKey
    reward: float
    verdict: Verdict
    marks: tuple[Mark, ...]
    reviewed: bool = False
    """Whether a model was asked and gave its verdict."""
    weight: float = 1.0
    """Simulations that it stands for, where only a sample was reviewed; 0: it is not in the sample."""
    id: str = ""
    """Of the record that was reviewed; empty where it is not known."""
    lost_at: int | None = None
    """The message from which on the gold state could not be reached any more; None: to the end it could, or nothing is
    known of that."""

    @property
    def left_out(self) -> bool:
        """Whether the corrected score is without it."""
        return self.verdict is Verdict.customer

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is the one that was reviewed, and not one that was played or scored anew since."""
        return self.reward == record.get("reward") and self.id in ("", record.get("id"))


def read_reviews(directory: Path) -> dict[SimulationKey, Review]:
    """The reviews of a run; empty where it has none, and without lines that hold none."""
    found: dict[SimulationKey, Review] = {}
    try:
        with open_file(directory / REVIEWS_FILE) as file:
            for line in lines_of(file):
                if (one := read_review(line)) is not None:
                    found[one.key] = one
    except OSError:
        return found
    return found


def read_scores(directory: Path) -> Json:
    """What the reviews of a run come to; empty where it was not reviewed."""
    return read_object(directory / SCORES_FILE)


def read_review(line: bytes) -> Review | None:
    """The review in a line; None where it holds none, from a damaged disk say."""
    try:
        value = decode_line(line)
        key = SimulationKey(str(value["domain"]), str(value["task_id"]), int(value["trial"]))
        return Review(
            key=key,
            reward=float(value["reward"]),
            verdict=Verdict(value["verdict"]),
            marks=tuple(_mark(one) for one in value["marks"]),
            reviewed=value.get("reviewed") is True,
            weight=float(value.get("weight", 1.0)),
            id=str(value.get("id") or ""),
            lost_at=_turn(value.get("lost_at")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _mark(value: Mapping[str, Any]) -> Mark:
    return Mark(
        kind=ErrorKind(value["kind"]),
        severity=Severity(value["severity"]),
        effect=Effect(value["effect"]),
        detail=str(value.get("detail") or ""),
        turn=_turn(value.get("turn")),
        quote=str(value.get("quote") or ""),
        source=ErrorSource(value.get("source", "rules")),
        votes=int(value.get("votes") or 0),
    )


def _turn(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
