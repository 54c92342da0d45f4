"""The configuration: schema of `conf/`, composition, validation, comparison of two configurations.

`src.main`, `src.experiment` and the `python -m` tools read from here; nothing below them knows Hydra.
"""

from __future__ import annotations

from src.config.schema import Config, DomainSettings, LimitsSettings

__all__ = ["Config", "DomainSettings", "LimitsSettings"]
