"""One review of one run, told top to bottom: rules on all of it, a model's votes where one is named, what both come
to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.reviews import Mark, Review, Severity, Verdict
from tau2_fleet.config.command_line import read_dotenv
from tau2_fleet.display.console import tell
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.agreement import cohen_kappa, fleiss_kappa, trust
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.preflight import preflight
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.answers import Counted, Vote, count
from tau2_fleet.review.case import Case
from tau2_fleet.review.cases import Cases
from tau2_fleet.review.files import VERSION, write_reviews, write_scores
from tau2_fleet.review.options import Options
from tau2_fleet.review.prompt import speaks_to_reviewers
from tau2_fleet.review.reachability import lost_at
from tau2_fleet.review.reviewer import Asked, Reviewer
from tau2_fleet.review.rules import review_by_rules, too_late, verdict_of
from tau2_fleet.review.sampling import stratified
from tau2_fleet.review.scores import Score, scores
from tau2_fleet.review.servers import reviewing_clients
from tau2_fleet.review.votes import VoteFile

_REASONS = 3
_NEAR = 2
"""Turns by which a rule and a reviewer may differ on where an error is."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a review of one run came to."""

    reviews: list[Review]
    scores: dict[str, Score]
    document: Json
    """As `review.json` has it."""
    files: list[Path]
    remarks: list[str]
    """What a reader has to know, a line each."""
    status: ExitStatus


@dataclass(slots=True)
class _Found:
    """The reviews as they grow."""

    by_rules: dict[SimulationKey, Review] = field(default_factory=dict)
    infrastructure: set[SimulationKey] = field(default_factory=set)
    """Ended for a reason outside the conversation: nothing of them can be reviewed."""
    unreadable: list[str] = field(default_factory=list)
    """Simulations whose conversation or checks are of another form."""
    addressed: dict[SimulationKey, list[int]] = field(default_factory=dict)
    """Turns that seem meant for a reviewer."""


def review_run(directory: Path, options: Options) -> Reviewed:
    """Review a run, and write what was found into its directory.

    Raises:
        UserError: it is no run, the model cannot be asked, or nothing can be written.
    """
    cases = Cases(directory)
    found = _by_rules(cases, options)
    if not found.by_rules and found.unreadable:
        raise UserError(f"{directory}: nothing in it is of the benchmark's form: {found.unreadable[0]}")
    if not found.by_rules:
        wanted = "no simulation failed" if options.only_failures else "no simulation is over"
        raise UserError(f"{directory}: {wanted}, so there is nothing to review")
    remarks = [f"{cases.damage}, left out"] if cases.damage.count else []
    if found.unreadable:
        remarks.append(f"{len(found.unreadable)} not of the benchmark's form, left out: {found.unreadable[0]}")
    remarks += [
        f"{name} is not at hand, so that only its record speaks of tools and changes: {why}"
        for name, why in cases.missing.items()
    ]
    asked, spent_usd, weights = Asked(), 0.0, dict[SimulationKey, float]()
    if options.judge is not None:
        chosen = _chosen(found, options)
        weights = chosen if options.sample is not None else {}
        asked, spent_usd = asyncio.run(_ask(directory, cases, list(chosen), options))
    counted = {key: count(votes, options.settings.votes) for key, votes in asked.votes.items()}
    reviews = _joined(cases, found, counted, weights, options)
    figures = scores(reviews, only_failures=options.only_failures)
    document = _document(options, found, reviews, figures, asked, spent_usd)
    more = {
        key: {
            "votes": [str(vote.verdict) for vote in asked.votes.get(key, ())],
            **({"speaks_to_reviewers": found.addressed[key]} if key in found.addressed else {}),
        }
        for key in found.by_rules
    }
    files = [write_reviews(directory, reviews, more), write_scores(directory, document)]
    status = ExitStatus.NEGATIVE if asked.stopped is not None else ExitStatus.FINISHED
    return Reviewed(reviews, figures, document, files, remarks + _remarks(document, asked, options), status)


def _by_rules(cases: Cases, options: Options) -> _Found:
    found = _Found()
    for case in cases:
        if options.only_failures and case.passed:
            continue
        domain = cases.domain(case.key.domain)
        try:
            turns = speaks_to_reviewers(case)
            review = review_by_rules(case, None if domain is None else lost_at(case, domain))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # a line that is a record, with a conversation that is none: another program's, or damage
            found.unreadable.append(f"{case.key.label} ({type(error).__name__}: {str(error)[:60]})")
            continue
        found.by_rules[case.key] = review
        if case.ended_by_infrastructure:
            found.infrastructure.add(case.key)
        if turns:
            found.addressed[case.key] = turns
    return found


def _chosen(found: _Found, options: Options) -> dict[SimulationKey, float]:
    """The simulations that the model is asked about, with how many each stands for."""
    can_be = {key: one for key, one in found.by_rules.items() if key not in found.infrastructure}
    if options.sample is None:
        return dict.fromkeys(can_be, 1.0)
    outcomes = ((key, is_success(one.reward)) for key, one in can_be.items())
    return stratified(outcomes, options.sample, options.settings.seed)


async def _ask(directory: Path, cases: Cases, keys: Sequence[SimulationKey], options: Options) -> tuple[Asked, float]:
    """The votes on these simulations, and what all of the run's have cost so far."""
    from tau2_fleet.run.model_lifetimes import check_lifetimes

    assert options.judge is not None
    read_dotenv()
    settings = options.settings
    policies: dict[str, str | None] = {}

    def policy(case: Case) -> str | None:
        digest = (case.record.get("prompts") or {}).get("agent") or case.key.domain
        if digest not in policies:
            policies[digest] = cases.policy(case)
        return policies[digest]

    with VoteFile(directory) as votes:
        async with (
            HttpPool() as http,
            reviewing_clients(
                options.judge, http, most=settings.max_in_flight, call_timeout_s=settings.call_timeout_s
            ) as clients,
        ):
            if not clients.priced and settings.max_cost_usd > 0:
                raise UserError(
                    f"review.max_cost_usd={settings.max_cost_usd:g}, but no price is known of {options.judge.model}: "
                    "it would limit nothing.\nSet judge.price.input and judge.price.output (USD per million tokens), "
                    "or add it to data/prices."
                )
            await check_lifetimes({"judge": options.judge}, http, date.today(), experiment=None, begun=None)
            await preflight({"judge": options.judge}, http)
            reviewer = Reviewer(settings, options.judge, clients, votes, policy)
            try:
                asked = await reviewer.review(keys, cases.find)
            except asyncio.CancelledError:
                tell("answers so far are kept: the same command goes on from them")
                raise
            return asked, votes.spent_usd


def _joined(
    cases: Cases,
    found: _Found,
    counted: Mapping[SimulationKey, Counted],
    weights: Mapping[SimulationKey, float],
    options: Options,
) -> list[Review]:
    """Rules and votes together; in a sample, those outside it stand for nothing."""
    reviews = []
    for key, one in found.by_rules.items():
        votes = counted.get(key)
        if votes is not None:
            one = join(one, votes)
            if one.left_out and one.lost_at is not None:
                one = with_marks(one, too_late(one.marks, one.lost_at, cases.find(key)))
        if weights:
            # What was not reviewed to the end, for want of money say, stands for nothing, as what was not drawn.
            weight = weights.get(key, 0.0) if votes is not None else float(key in found.infrastructure)
            one = dataclasses.replace(one, weight=weight)
        reviews.append(one)
    return reviews


def join(by_rules: Review, counted: Counted) -> Review:
    """One review of what the rules and the reviewer found.

    A major error of the customer counts whoever found it; beyond that the reviewer's verdict goes before the rules',
    and where it has none, there is none.
    """
    own = [mark for mark in counted.marks if not any(_is_same(mark, other) for other in by_rules.marks)]
    marks = [*(_confirmed(mark, counted.marks) for mark in by_rules.marks), *own]
    verdict = counted.verdict
    if verdict_of(by_rules.marks) is Verdict.customer:
        verdict = Verdict.customer
    elif verdict is Verdict.nobody and by_rules.verdict in (Verdict.agent, Verdict.setup):
        verdict = by_rules.verdict
    if verdict is not Verdict.customer:
        # An error of the customer that too few votes call decisive is shown, and decides nothing.
        marks = [dataclasses.replace(mark, severity=Severity.minor) if mark.decides else mark for mark in marks]
    return dataclasses.replace(
        by_rules, verdict=verdict, marks=tuple(marks), reviewed=counted.verdict is not Verdict.undecided
    )


def with_marks(review: Review, marks: Sequence[Mark]) -> Review:
    """The same with other marks, and the verdict that follows from them."""
    return dataclasses.replace(review, marks=tuple(marks), verdict=verdict_of(marks))


def _is_same(mark: Mark, other: Mark) -> bool:
    if mark.kind is not other.kind:
        return False
    return mark.turn is None or other.turn is None or abs(mark.turn - other.turn) <= _NEAR


def _confirmed(mark: Mark, votes: Sequence[Mark]) -> Mark:
    """A rule's mark with the votes that say the same."""
    same = [one.votes for one in votes if _is_same(one, mark)]
    return dataclasses.replace(mark, votes=max(same)) if same else mark


def _document(
    options: Options,
    found: _Found,
    reviews: Sequence[Review],
    figures: Mapping[str, Score],
    asked: Asked,
    spent_usd: float,
) -> Json:
    """What `review.json` says."""
    judge = options.judge
    document: Json = {
        "v": VERSION,
        "judge": None if judge is None else {"name": options.judge_name, "model": judge.model or judge.provider.value},
        "settings": dataclasses.asdict(options.settings),
        "only_failures": options.only_failures,
        "sample": None if options.sample is None else {"wanted": options.sample, "reviewed": len(asked.votes)},
        "simulations": len(reviews),
        "infrastructure": len(found.infrastructure),
        "reviewed": sum(one.reviewed for one in reviews),
        "stopped": asked.stopped,
        "unusable_answers": asked.unusable,
        "cost_usd": spent_usd,
        "speaks_to_reviewers": len(found.addressed),
        "errors": _errors(reviews),
        "scores": {name: one.as_dict() for name, one in figures.items()},
    }
    if asked.votes:
        document["agreement"] = agreement(list(asked.votes.values()), options.settings.votes)
    if options.labels is not None:
        verdicts = {one.key: one.left_out for one in reviews if one.weight > 0}
        document["labels"] = dataclasses.asdict(trust(verdicts, options.labels))
    return document


def _errors(reviews: Sequence[Review]) -> Json:
    """Party to kind to simulations that have such an error, by who found it."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for one in reviews:
        for kind, source in {(mark.kind, mark.source) for mark in one.marks}:
            of_party = counts.setdefault(str(kind.party), {})
            of_party.setdefault(str(kind), Counter())[str(source)] += 1
    return {party: {kind: dict(count) for kind, count in kinds.items()} for party, kinds in counts.items()}


def agreement(votes: Sequence[Sequence[Vote]], asked: int) -> Json:
    """How far the votes agree on the verdict: Cohen's kappa of two, Fleiss' of more; simulations with all votes."""
    full = [[str(vote.verdict) for vote in one] for one in votes if len(one) == asked]
    if asked == 2:
        kappa, name = cohen_kappa([one[0] for one in full], [one[1] for one in full]), "cohen"
    else:
        kappa, name = fleiss_kappa(full), "fleiss"
    unanimous = sum(len(set(one)) == 1 for one in full)
    return {"kappa": kappa, "kind": name, "simulations": len(full), "unanimous": unanimous}


def _remarks(document: Json, asked: Asked, options: Options) -> list[str]:
    lines = []
    if document["infrastructure"]:
        lines.append(f"{document['infrastructure']} ended for an infrastructure reason, and count as failures")
    if document["sample"] is not None:
        lines.append(
            f"a sample of {document['sample']['reviewed']} of {document['simulations']} was reviewed, of every domain, "
            "passed and failed, and weighted by what each stands for"
        )
    if "agreement" in document:
        found = document["agreement"]
        kappa = "-" if found["kappa"] is None else f"{found['kappa']:.2f}"
        lines.append(
            f"{document['judge']['model']}: ${document['cost_usd']:.4f} in all, {asked.new} new answers; votes agree "
            f"on {found['unanimous']} of {found['simulations']}, {found['kind']} kappa {kappa}"
        )
    undecided = document["scores"]["overall"]["undecided"]
    if undecided:
        lines.append(
            f"{undecided} have no verdict (no usable answer, or votes that are even), and are kept as they are"
        )
    for reason, times in sorted(asked.reasons.items(), key=lambda item: -item[1])[:_REASONS]:
        lines.append(f"{times} × {reason}")
    if asked.stopped is not None:
        lines.append(f"stopped: {asked.stopped}; the same command with more goes on from here")
    if document["speaks_to_reviewers"]:
        lines.append(
            f"{document['speaks_to_reviewers']} conversations hold words that seem meant for a reviewer: look at them "
            "yourself (speaks_to_reviewers in reviews.jsonl)"
        )
    if "labels" in document:
        lines.append(labels_line(document["labels"]))
    return lines


def labels_line(found: Json) -> str:
    """Precision and recall in a line."""

    def told(name: str) -> str:
        share = found[name]
        return "-" if share is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"

    kappa = "-" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return (
        f"against {found['labelled']} labels: precision {told('precision')}, recall {told('recall')} for errors of the "
        f"customer, Cohen's kappa {kappa}"
    )
