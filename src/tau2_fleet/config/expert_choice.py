"""Which model an expert gets where the key of the first choice is missing: decided before anything is compared."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from tau2_fleet.llm.keys import find_key, key_name
from tau2_fleet.llm.settings import ModelSettings

_SLOTS = ("expert_1", "expert_2", "expert_3")


def choose_experts(tree: DictConfig) -> list[str]:
    """Put the fallback in an expert's place when the key that its model needs is not in the environment.

    The composed configuration is changed, so that what is saved, digested and compared on a resume is the
    choice. Returns a line for people for each change.
    """
    told = []
    for slot in _SLOTS:
        expert = tree.experts.get(slot)
        if expert is None or expert.get("fallback") is None:
            continue
        first, second = _settings(expert.llm), _settings(expert.fallback)
        key = key_name(first)
        if key is None or find_key(first) is not None:
            continue
        expert.llm = expert.fallback
        told.append(
            f"{slot.replace('_', '-')}: {key} is not set, so {second.model} runs on a pool of the fleet; "
            f"set the key, or do without experts (experts=none)"
        )
    return told


def _settings(node: DictConfig) -> ModelSettings:
    settings = OmegaConf.to_object(node)
    assert isinstance(settings, ModelSettings)
    return settings
