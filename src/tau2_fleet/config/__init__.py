"""The configuration: schema of `conf/`, composition, validation, comparison of two configurations.

`src.main`, `tau2_fleet.run.experiment` and the `python -m` tools read from here; nothing below them knows Hydra.
"""

from __future__ import annotations

from tau2_fleet.config.compare import departures, differing_keys, result_digest
from tau2_fleet.config.compose import compose
from tau2_fleet.config.models import agent_model, model_settings
from tau2_fleet.config.schema import Config, DomainSettings, LimitsSettings, flat
from tau2_fleet.config.tasks import task_ids_of
from tau2_fleet.config.validation import load_config, validate

__all__ = [
    "Config",
    "DomainSettings",
    "LimitsSettings",
    "agent_model",
    "compose",
    "departures",
    "differing_keys",
    "flat",
    "load_config",
    "model_settings",
    "result_digest",
    "task_ids_of",
    "validate",
]
