"""Under which name a tracker shows the shards of one run together; `experiment.py` asks."""

from __future__ import annotations

import hashlib
import json
import os

from tau2_fleet.config import Config, result_digest


def group_of_shards(config: Config) -> str | None:
    """The same for all shards of a run, on whatever machine; None: the run is whole.

    Shards do not know of each other: it is made of what they have in common, the number of their SLURM array included.
    """
    if config.shard.count == 1:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    chosen = {name: domain.tasks for name, domain in config.domain.items()}
    common = [result_digest(config), chosen, config.num_trials, config.num_tasks, config.task_ids, array]
    digest = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.shard.count} shards {digest}"
