"""Records of simulations that never were, for tests of what is done with records."""

from __future__ import annotations

from typing import Any

from tau2_fleet.record.line import Record, SimulationKey


def make_record(key: SimulationKey, *, reward: float = 1.0, reason: str = "user_stop", **fields: Any) -> Record:
    """A finished simulation with two messages and one call."""
    return Record(
        **{
            "id": f"{key.domain}-{key.task_id}-{key.trial}",
            "domain": key.domain,
            "task_id": key.task_id,
            "trial": key.trial,
            "seed": 626729,
            "attempt": 0,
            "started": "2026-01-01T00:00:00.000001",
            "ended": "2026-01-01T00:00:02.000001",
            "duration_s": 2.0,
            "termination_reason": reason,
            "reward": reward,
            "sub_rewards": {"DB": reward},
            "reward_info": {"reward": reward, "reward_basis": ["DB"], "info": None},
            "messages": [
                {
                    "role": "assistant",
                    "content": "Hello",
                    "tool_calls": None,
                    "turn_idx": 0,
                    "timestamp": "2026-01-01T00:00:00.000002",
                    "cost": 0.0,
                },
                {
                    "role": "user",
                    "content": "###STOP###",
                    "tool_calls": None,
                    "turn_idx": 1,
                    "timestamp": "2026-01-01T00:00:01.000002",
                    "cost": 0.25,
                },
            ],
            "calls": [{"role": "user", "step": 0, "trimmed_messages": 0}],
            "usage_by_role": {"user": {"input_tokens": 10, "output_tokens": 3, "cached_tokens": 0}},
            "cost_by_role": {"user": 0.25},
            **fields,
        }
    )
