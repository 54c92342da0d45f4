"""The simulated judge: it finds every assertion met."""

from __future__ import annotations

import orjson

from tau2_fleet.simserver.policy_words import Situation, text_of


def verdict(situation: Situation) -> str:
    """All assertions met: those of the prompt, or of the script when the prompt has none to be read."""
    assertions = _assertions_in(text_of(situation.messages[-1]) if situation.messages else "")
    if not assertions and situation.script is not None:
        assertions = list(situation.script.assertions)
    results = [
        {"expectedOutcome": assertion, "reasoning": "The scripted conversation meets it.", "metExpectation": True}
        for assertion in assertions
    ]
    return orjson.dumps({"results": results}).decode()


def _assertions_in(prompt: str) -> list[str]:
    """The list after the last `expectedOutcomes:` that is followed by nothing but a list."""
    import ast  # the list stands in the prompt as Python writes it; only judges need this import

    mark = "expectedOutcomes:"
    position = prompt.rfind(mark)
    while position >= 0:
        try:
            found = ast.literal_eval(prompt[position + len(mark) :].strip())
        except (ValueError, SyntaxError):
            position = prompt.rfind(mark, 0, position)
            continue
        return [str(item) for item in found] if isinstance(found, list) else []
    return []
