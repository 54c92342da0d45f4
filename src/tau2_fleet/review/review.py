"""One review of one run, told top to bottom: rules on all of it, a model's votes where one is named, what both come
to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.reviews import Review
from tau2_fleet.config.command_line import read_dotenv
from tau2_fleet.display.console import tell
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.preflight import preflight
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.answers import majority
from tau2_fleet.review.case import Case
from tau2_fleet.review.cases import Cases
from tau2_fleet.review.document import remarks_on, review_document
from tau2_fleet.review.files import write_reviews, write_scores
from tau2_fleet.review.first_pass import FirstPass, review_all_by_rules
from tau2_fleet.review.joining import join_all
from tau2_fleet.review.options import ReviewOptions
from tau2_fleet.review.reviewer import Asked, Reviewer
from tau2_fleet.review.sampling import stratified
from tau2_fleet.review.scores import Score, scores
from tau2_fleet.review.servers import reviewing_clients
from tau2_fleet.review.votes import VoteFile

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


def review_run(directory: Path, options: ReviewOptions) -> Reviewed:
    """Review a run, and write what was found into its directory.

    Raises:
        UserError: it is no run, the model cannot be asked, or nothing can be written.
    """
    cases = Cases(directory)
    found = review_all_by_rules(cases, only_failures=options.only_failures)
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
    counted = {key: majority(votes, options.settings.votes) for key, votes in asked.votes.items()}
    reviews = join_all(cases, found, counted, weights)
    figures = scores(reviews, only_failures=options.only_failures)
    document = review_document(options, found, reviews, figures, asked, spent_usd)
    more = {
        key: {
            "votes": [str(vote.verdict) for vote in asked.votes.get(key, ())],
            **({"speaks_to_reviewers": found.addressed[key]} if key in found.addressed else {}),
        }
        for key in found.by_rules
    }
    files = [write_reviews(directory, reviews, more), write_scores(directory, document)]
    status = ExitStatus.NEGATIVE if asked.stopped is not None else ExitStatus.FINISHED
    return Reviewed(reviews, figures, document, files, remarks + remarks_on(document, asked), status)


def _chosen(found: FirstPass, options: ReviewOptions) -> dict[SimulationKey, float]:
    """The simulations that the model is asked about, with how many each stands for."""
    can_be = {key: one for key, one in found.by_rules.items() if key not in found.infrastructure}
    if options.sample is None:
        return dict.fromkeys(can_be, 1.0)
    outcomes = ((key, is_success(one.reward)) for key, one in can_be.items())
    return stratified(outcomes, options.sample, options.settings.seed)


async def _ask(
    directory: Path, cases: Cases, keys: Sequence[SimulationKey], options: ReviewOptions
) -> tuple[Asked, float]:
    """The votes on these simulations, and what all of the run's have cost so far."""
    from tau2_fleet.run.model_lifetimes import refuse_ended_models

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
            await refuse_ended_models({"judge": options.judge}, http, date.today(), experiment=None, begun=None)
            await preflight({"judge": options.judge}, http)
            reviewer = Reviewer(settings, options.judge, clients, votes, policy)
            try:
                asked = await reviewer.review(keys, cases.find)
            except asyncio.CancelledError:
                tell("answers so far are kept: the same command goes on from them")
                raise
            return asked, votes.spent_usd
