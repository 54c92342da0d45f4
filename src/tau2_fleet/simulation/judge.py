"""The judge of natural-language assertions: asks a model, and never takes an unreadable answer for a pass."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tau2_fleet.evaluation.reward import NLCheck
from tau2_fleet.llm.session import ModelSession, RoleError
from tau2_fleet.llm.types import ChatMessage, ModelError

ATTEMPTS = 3
_OBJECT = re.compile(r"\{.*\}", re.S)


class JudgeError(ModelError):
    """No readable verdict was had: an infrastructure error, not a failed assertion."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge said."""

    verdicts: list[NLCheck]
    answer: str | None = None
    """The text that they were read in, as the judge gave it; None where it was not asked."""


async def judge(session: ModelSession, question: str, assertions: Sequence[str]) -> Judgement:
    """Grade the assertions; an answer that cannot be read is asked for again with another seed.

    Raises:
        JudgeError: the judge gave no readable answer.
        ModelError: the judge could not be asked.
    """
    problem = "no answer"
    first_seed = session.seed
    for attempt in range(ATTEMPTS):
        session.seed = None if first_seed is None else first_seed + attempt
        try:
            reply = await session.ask([ChatMessage("user", question)])
            answer = reply.text or ""
            return Judgement(parse_verdicts(answer, assertions), answer)
        except (ValueError, RoleError) as error:
            problem = str(error)
    raise JudgeError(f"the judge gave no readable verdict in {ATTEMPTS} answers: {problem}")


def parse_verdicts(text: str, assertions: Sequence[str]) -> list[NLCheck]:
    """The verdicts in a judge's answer, one for each assertion.

    Raises:
        ValueError: the answer is not the JSON asked for, or leaves an assertion ungraded.
    """
    found = _OBJECT.search(text)
    if found is None:
        raise ValueError("no JSON object in the answer")
    try:
        results = json.loads(found.group(0)).get("results")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(results, list) or len(results) != len(assertions):
        raise ValueError(f"wanted {len(assertions)} results")
    return [_verdict(result) for result in results]


def _verdict(result: Any) -> NLCheck:
    if not isinstance(result, dict) or not isinstance(result.get("metExpectation"), bool):
        raise ValueError("a result without a boolean metExpectation")
    return NLCheck(str(result.get("expectedOutcome", "")), result["metExpectation"], str(result.get("reasoning", "")))
