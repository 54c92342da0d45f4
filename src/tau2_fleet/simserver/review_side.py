"""The simulated reviewer: it finds customers that end while the agent waits for them, and no other error."""

from __future__ import annotations

from typing import Any

import orjson

from tau2_fleet.simserver.policy_words import Situation, text_of

_STOP = "###STOP###"


def review(situation: Situation) -> str:
    """A review of the conversation in the prompt; without errors where there is none to be read."""
    try:
        asked = orjson.loads(text_of(situation.messages[-1])) if situation.messages else {}
        name, turns = asked["case"], asked["simulation"]["conversation"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return '{"case": "", "errors": []}'
    return orjson.dumps({"case": name, "errors": list(_errors(turns))}).decode()


def _errors(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(turns) < 2 or turns[-1].get("by") != "customer" or _STOP not in turns[-1].get("text", ""):
        return []
    before = turns[-2]
    if before.get("by") != "agent" or not str(before.get("text", "")).rstrip().endswith("(yes/no)?"):
        return []
    return [
        {
            "kind": "early_stop",
            "turn": turns[-1]["turn"],
            "severity": "major",
            "effect": "hindered",
            "quote": turns[-1]["text"][-100:],
            "reason": "It ended while the agent waited for its answer.",
        }
    ]
