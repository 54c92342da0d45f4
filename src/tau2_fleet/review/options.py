"""What a command line asks of a review: the model from a file of `conf/llm/`, keys, sample, labels."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.config.compose import explain
from tau2_fleet.config.names import did_you_mean, nearest
from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.errors import UserError
from tau2_fleet.key import key_of
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.labels import read_labels
from tau2_fleet.review.settings import ReviewSettings

_GROUP = "llm"
_MODEL, _OWN = "judge.", "review."


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """How runs are reviewed."""

    settings: ReviewSettings = field(default_factory=ReviewSettings)
    judge: ModelSettings | None = None
    """The model that is asked; None: rules alone."""
    judge_name: str = "none"
    sample: int | None = None
    only_failures: bool = False
    labels: dict[SimulationKey, bool] | None = None

    @classmethod
    def of(cls, given: argparse.Namespace, keys: Sequence[str]) -> ReviewOptions:
        """From the command line.

        Raises:
            UserError: there is no such model, key or value, or they contradict each other.
        """
        for key in keys:
            if not key.startswith((_MODEL, _OWN)):
                raise UserError(f"{key}: keys of a review begin with judge. (of the model) or review.")
        of_model = [key.removeprefix(_MODEL) for key in keys if key.startswith(_MODEL)]
        name = given.judge or "none"
        if name == "none" and (of_model or given.sample is not None):
            raise UserError(f"{'--sample' if not of_model else _MODEL + of_model[0]}: needs a model, --judge MODEL")
        if given.sample is not None and given.sample < 1:
            raise UserError(f"--sample {given.sample}: at least 1")
        if given.sample is not None and given.failed:
            raise UserError("--sample takes passes and failures alike; leave out --failed")
        own = [key.removeprefix(_OWN) for key in keys if key.startswith(_OWN)]
        own += [f"votes={given.votes}"] if given.votes is not None else []
        own += [f"max_cost_usd={given.max_cost_usd}"] if given.max_cost_usd is not None else []
        return cls(
            settings=_merged(ReviewSettings, {}, own, _OWN),
            judge=None if name == "none" else judge_model_settings(name, of_model),
            judge_name=name,
            sample=given.sample,
            only_failures=given.failed,
            labels=None if given.labels is None else read_labels(given.labels),
        )


def judge_model_settings(name: str, overrides: Sequence[str] = ()) -> ModelSettings:
    """The model in `conf/llm/NAME.yaml`, with keys of its own changed.

    Raises:
        UserError: there is no such file, or a key or value is none of a model's.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    choices = SHIPPED.choices(_GROUP)
    if name not in choices:
        raise UserError(
            f"--judge {name}: there is no such model.{did_you_mean(nearest(name, choices))}\n"
            f"Models of conf/llm: {', '.join(choices)}; another one of a provider's: judge.model=NAME"
        )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            tree: Any = OmegaConf.to_container(compose(f"{_GROUP}/{name}"), resolve=True)
    except Exception as error:
        raise UserError(f"conf/llm/{name}.yaml: {explain(error)}") from error
    settings: ModelSettings = _merged(ModelSettings, tree.get(_GROUP, tree), overrides, _MODEL)
    return settings


def _merged(kind: type[Any], content: dict[str, Any], overrides: Sequence[str], prefix: str) -> Any:
    """Settings of a class with keys changed, each checked against its type and range.

    Raises:
        UserError: a key is unknown, or a value cannot be.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged = OmegaConf.merge(OmegaConf.structured(kind), content)
    for override in overrides:
        name = override.partition("=")[0]
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([override]))
        except OmegaConfBaseException as error:
            known = [one.name for one in dataclasses.fields(kind)]
            if name.partition(".")[0] not in known:
                hint = did_you_mean([prefix + near for near in nearest(name, known)])
                raise UserError(f"{prefix}{name}: there is no such key.{hint}") from error
            raise UserError(f"{prefix}{override}: {str(error).splitlines()[0]}") from error
    try:
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{prefix}*: {str(error).splitlines()[0]}") from error
    for one in dataclasses.fields(kind):
        about, value = key_of(one), getattr(settings, one.name)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if about.range is not None and numeric and not about.range.holds(value):
            raise UserError(f"{prefix}{one.name}={value}: {about.range}")
        if about.among and value not in about.among:
            raise UserError(f"{prefix}{one.name}={value}: one of {', '.join(about.among)}")
    return settings
