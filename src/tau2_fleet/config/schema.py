"""The type of every key of `conf/`; Hydra checks what it composes against `Config`, everybody else reads one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.llm.settings import ModelSettings, PriceSettings
from tau2_fleet.simulation.settings import AgentSettings, ExpertsSettings, JudgeSettings
from tau2_fleet.telemetry.levels import LogLevel
from tau2_fleet.telemetry.settings import WandbSettings


@dataclass
class DomainSettings:
    """Which tasks of a domain are run, and on which data."""

    tasks: str = "base"
    """A task set's name, or the path of a JSON file of tasks."""
    data_dir: Optional[str] = None
    """Other data of the benchmark's form (default: TAU2_DATA_DIR); null: the installed package's."""


@dataclass
class LimitsSettings:
    """When to stop waiting, spending, or running."""

    call_timeout_s: Optional[float] = 600.0
    """One model call, its retries included; null: no such limit."""
    simulation_timeout_s: Optional[float] = 3600.0
    run_timeout_s: Optional[float] = None
    max_cost_usd: Optional[float] = None
    """No new simulation starts once the run has cost this much."""
    grace_s: float = 30.0
    """How long simulations in flight may go on after the first Ctrl-C."""


@dataclass
class Config:
    """One run, said in full."""

    agent: AgentSettings = field(default_factory=AgentSettings)
    domain: dict[str, DomainSettings] = field(default_factory=dict)
    """The selected domains, in the order of their selection."""
    server: ServerSettings = field(default_factory=ServerSettings)
    user_llm: ModelSettings = field(default_factory=ModelSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    experts: ExpertsSettings = field(default_factory=ExpertsSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    wandb: WandbSettings = field(default_factory=WandbSettings)
    max_steps: int = 200
    max_errors: int = 10
    validate_communication: bool = False
    num_trials: int = 1
    num_tasks: Optional[int] = None
    """The first so many tasks of each domain; null: all."""
    task_ids: Optional[list[str]] = None
    """`5`, or `retail/5` with several domains; null: all."""
    max_concurrency: int = 10
    """Simulations in flight over all domains."""
    seed: int = 300
    log_level: LogLevel = LogLevel.INFO
    resume: Optional[str] = None
    """The run directory to go on with; `src.main` acts on it before Hydra composes."""
    resume_force: bool = False
    experiment_name: Optional[str] = None
    """Set by the files of `conf/experiment/`: which of them this run started from."""


SCHEMA_NAME = "schema"
"""The name under which `conf/config.yaml` takes `Config` into its defaults list."""


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and plain values of a settings dataclass; a missing part is one key with None."""
    if dataclasses.is_dataclass(settings):
        items = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    elif prefix == "domain.":
        items = settings
    else:
        return {prefix[:-1]: settings.value if isinstance(settings, Enum) else settings}
    return {key: leaf for name, value in items.items() for key, leaf in flat(value, f"{prefix}{name}.").items()}


def schema() -> Config:
    """The configuration as Hydra is to know it: prices can be set key by key.

    Hydra cannot set a key of a group that is null, which would put them out of reach of the command line; `read`
    takes them away again where they stay unset.
    """
    config = Config()
    for model in (config.agent, config.user_llm, config.judge):
        model.price = PriceSettings(input=MISSING, output=MISSING)
    return config


def register() -> None:
    """Make the schema known to Hydra; doing it again changes nothing."""
    ConfigStore.instance().store(name=SCHEMA_NAME, node=schema(), provider="tau2_fleet.config")
