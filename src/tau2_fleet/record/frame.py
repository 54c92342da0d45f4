"""A run's simulations as a pandas data frame, for notebooks and people's own scripts: `tau2_fleet.record.read`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.record.overview import overviews

if TYPE_CHECKING:
    import pandas


def read(directory: str | Path) -> pandas.DataFrame:
    """One row a simulation, in the order of the record; the last record of each counts.

    Columns: `domain`, `task_id`, `trial`, `reward`, `success`, `termination_reason`, `duration_s`, `cost_usd`,
    `input_tokens`, `output_tokens`, `messages`, `error`, and `reward_KIND` for each kind of sub-reward (missing where a
    simulation has none).

    Raises:
        UserError: the directory holds no run.
    """
    import pandas

    rows = [
        {
            "domain": one.domain,
            "task_id": one.task_id,
            "trial": one.trial,
            "reward": one.reward,
            "success": not one.failed,
            "termination_reason": one.termination_reason,
            "duration_s": one.duration_s,
            "cost_usd": one.cost_usd,
            "input_tokens": one.input_tokens,
            "output_tokens": one.output_tokens,
            "messages": one.messages,
            "error": one.error,
            **{f"reward_{kind}": value for kind, value in one.sub_rewards.items()},
        }
        for one in overviews(Path(directory))
    ]
    return pandas.DataFrame(rows)
