"""τ²-bench 1.0.1: a replay runs only calls that change state, and infrastructure errors leave its own figures."""

from __future__ import annotations

from tau2_fleet.benchmark.scoring.rules import Replay, ScoringRules, UnknownTool

RULES = ScoringRules(
    name="tau2-1.0.1",
    replay=Replay.writes,
    unknown_tool=UnknownTool.skip,
    default_basis=("DB", "COMMUNICATE"),
    criteria=frozenset({"DB", "ENV_ASSERTION", "NL_ASSERTION", "ACTION", "COMMUNICATE"}),
    scored_endings=frozenset({"user_stop", "agent_stop"}),
    endings=frozenset(
        {
            "user_stop",
            "agent_stop",
            "max_steps",
            "timeout",
            "too_many_errors",
            "agent_error",
            "user_error",
            "infrastructure_error",
            "context_window_exceeded",
            "unexpected_error",
        }
    ),
    outside_metrics=frozenset({"infrastructure_error"}),
    tool_types=True,
)
