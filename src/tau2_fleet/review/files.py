"""`reviews.jsonl` and `review.json` of a run directory; `docs/formats.md` describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.reviews import REVIEWS_FILE, SCORES_FILE, Review
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.record.atomic import replaced, write_json
from tau2_fleet.record.line import encode_line

VERSION = 1


def write_reviews(directory: Path, reviews: Sequence[Review], more: Mapping[Any, Mapping[str, Any]]) -> Path:
    """One line a simulation, in the order of the record.

    Args:
        more: by simulation, what else its line says (`votes`, `notes`).

    Raises:
        UserError: it cannot be written.
    """
    path = directory / REVIEWS_FILE
    with replaced(path) as file:
        for one in reviews:
            file.write(encode_line(_line(one) | dict(more.get(one.key, {}))))
    return path


def _line(review: Review) -> dict[str, Any]:
    return {
        "v": VERSION,
        "id": review.id,
        "domain": review.key.domain,
        "task_id": review.key.task_id,
        "trial": review.key.trial,
        "reward": review.reward,
        "passed": is_success(review.reward),
        "verdict": str(review.verdict),
        "left_out": review.left_out,
        "reviewed": review.reviewed,
        "weight": review.weight,
        "lost_at": review.lost_at,
        "marks": [mark.as_dict() for mark in review.marks],
    }


def write_scores(directory: Path, content: Mapping[str, Any]) -> Path:
    """What the reviews come to.

    Raises:
        UserError: it cannot be written.
    """
    path = directory / SCORES_FILE
    write_json(path, content)
    return path
