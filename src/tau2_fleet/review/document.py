"""What a review of a run says: `review.json`, and the lines that a reader has to know; `review.py` asks for both."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_fleet.analysis.reviews import Review
from tau2_fleet.evaluation.agreement import cohen_kappa, fleiss_kappa, trust
from tau2_fleet.review.answers import Vote
from tau2_fleet.review.files import VERSION
from tau2_fleet.review.first_pass import FirstPass
from tau2_fleet.review.options import ReviewOptions
from tau2_fleet.review.reviewer import Asked
from tau2_fleet.review.scores import Score

_REASONS = 3

Json = dict[str, Any]


def review_document(
    options: ReviewOptions,
    found: FirstPass,
    reviews: Sequence[Review],
    figures: Mapping[str, Score],
    asked: Asked,
    spent_usd: float,
) -> Json:
    """What `review.json` says.

    Args:
        spent_usd: on all reviews of the run so far.
    """
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
        document["agreement"] = _agreement(list(asked.votes.values()), options.settings.votes)
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


def _agreement(votes: Sequence[Sequence[Vote]], asked: int) -> Json:
    """How far the votes agree on the verdict: Cohen's kappa of two, Fleiss' of more; simulations with all votes."""
    full = [[str(vote.verdict) for vote in one] for one in votes if len(one) == asked]
    if asked == 2:
        kappa, name = cohen_kappa([one[0] for one in full], [one[1] for one in full]), "cohen"
    else:
        kappa, name = fleiss_kappa(full), "fleiss"
    unanimous = sum(len(set(one)) == 1 for one in full)
    return {"kappa": kappa, "kind": name, "simulations": len(full), "unanimous": unanimous}


def remarks_on(document: Json, asked: Asked) -> list[str]:
    """What a reader of this document has to know, a line each."""
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
        lines.append(_labels_line(document["labels"]))
    return lines


def _labels_line(found: Json) -> str:
    """Precision and recall in a line."""

    def told(name: str) -> str:
        share = found[name]
        return "-" if share is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"

    kappa = "-" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return (
        f"against {found['labelled']} labels: precision {told('precision')}, recall {told('recall')} for errors of the "
        f"customer, Cohen's kappa {kappa}"
    )
