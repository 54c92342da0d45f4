"""How long remote models live: what their files say, what their provider says, and which of it counts.

`config.lifetimes` knows the files and the words for people; a run's start and the doctor ask both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from tau2_fleet.llm.settings import LifetimeSettings, ModelSettings

NONE_ANNOUNCED = "none announced"
"""What a model's file says where its provider has named no end."""
WARNED_DAYS = 60
"""From so many days before the end a run says so."""

_OPENAI_BY_LITELLM = re.compile(r"^openai/(responses/)?")


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """A model whose end is known."""

    model: str
    ends: date
    """The day of the shutdown: on it the model may still answer, after it no longer."""
    successor: str | None
    """A file of `conf/llm/`, or the provider's name of a model."""
    source: str
    """Who says so."""
    roles: tuple[str, ...]
    """Which roles of the run the model plays."""

    def is_over(self, today: date) -> bool:
        return today > self.ends

    def is_near(self, today: date) -> bool:
        """Whether it is time for a warning; not once it is over."""
        return 0 <= (self.ends - today).days <= WARNED_DAYS


def own_name(model: str | None) -> str:
    """The model's name at its provider, without the words by which litellm finds the way to OpenAI."""
    return _OPENAI_BY_LITELLM.sub("", model or "")


def day(text: str) -> date:
    """The day that a lifetime names.

    Raises:
        ValueError: not a date as 2026-12-11.
    """
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"not a date as 2026-12-11: {text}")
    return date.fromisoformat(text)


def lifetime_of(settings: ModelSettings, known: Mapping[str, LifetimeSettings]) -> LifetimeSettings | None:
    """What is known of this model's life; None for a model of the fleet, one behind a URL of one's own, a strange one.

    Args:
        known: by the model's own name. It counts where the settings' `lifetime` is about another model, as after
            `user_llm=gpt-5 user_llm.model=...`.
    """
    if settings.provider.is_pool or settings.base_url is not None:
        return None
    stated = settings.lifetime
    if stated is not None and stated.model is not None and own_name(stated.model) == own_name(settings.model):
        return stated
    return known.get(own_name(settings.model))


def model_ends(
    models: Mapping[str, ModelSettings],
    known: Mapping[str, LifetimeSettings],
    told: Mapping[str, date | None] | None = None,
) -> list[ModelEnd]:
    """The ends of the models of a run, each model once, in the order of the roles.

    Args:
        models: by role.
        known: as in `lifetime_of`.
        told: by role, what the provider itself says now; it counts more than any file. None: no end is announced.
    """
    found: dict[tuple[str, date], ModelEnd] = {}
    for role, settings in models.items():
        stated = lifetime_of(settings, known)
        successor = None if stated is None else stated.successor
        if told is not None and role in told:
            ends, source = told[role], "the provider's list of models"
        elif stated is None or stated.ends is None or stated.ends == NONE_ANNOUNCED:
            continue
        else:
            ends, source = day(stated.ends), stated.source or "its file in conf/llm"
        if ends is not None:
            name = own_name(settings.model)
            before = found.get((name, ends))
            roles = (role,) if before is None else (*before.roles, role)
            found[name, ends] = ModelEnd(name, ends, successor, source, roles)
    return list(found.values())
