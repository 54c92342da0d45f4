"""τ²-bench 0.2, the installed package's rules: its own evaluator is the measure of them."""

from __future__ import annotations

from tau2_fleet.benchmark.scoring.rules import Replay, ScoringRules, UnknownTool

RULES = ScoringRules(
    name="tau2-0.2",
    replay=Replay.all_calls,
    unknown_tool=UnknownTool.run,
    default_basis=("DB", "COMMUNICATE"),
    criteria=frozenset({"DB", "ENV_ASSERTION", "NL_ASSERTION", "ACTION", "COMMUNICATE"}),
    scored_endings=frozenset({"user_stop", "agent_stop"}),
    endings=frozenset(
        {"user_stop", "agent_stop", "max_steps", "too_many_errors", "agent_error", "user_error", "judge_stop"}
    ),
)
