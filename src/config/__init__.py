"""The configuration: schema of `conf/`, composition, validation, comparison of two configurations.

`src.main`, `src.experiment` and the `python -m` tools read from here; nothing below them knows Hydra.
"""

from __future__ import annotations

from src.config.compare import departures, differing_keys, result_digest
from src.config.compose import compose
from src.config.models import agent_model, model_settings
from src.config.schema import Config, DomainSettings, LimitsSettings, flat
from src.config.tasks import task_ids_of
from src.config.validation import load, validate

__all__ = [
    "Config",
    "DomainSettings",
    "LimitsSettings",
    "agent_model",
    "compose",
    "departures",
    "differing_keys",
    "flat",
    "load",
    "model_settings",
    "result_digest",
    "task_ids_of",
    "validate",
]
