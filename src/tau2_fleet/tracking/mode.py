"""Whether a run is tracked online, in its directory alone, or not at all; the tracker and the doctor ask."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import target_of
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings

_DEFAULT_HOST = "https://api.wandb.ai"


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a W&B key is there: in WANDB_API_KEY, or in the `.netrc` that `wandb login` writes."""
    if environment.get("WANDB_API_KEY"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or _DEFAULT_HOST).hostname or ""
    path = Path(environment.get("NETRC") or Path(environment.get("HOME", "/")) / ".netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def resolve_mode(mode: WandbMode, environment: Mapping[str, str] = os.environ) -> WandbMode:
    """The mode a run gets: `auto` follows WANDB_MODE if set, else the presence of a key.

    Raises:
        UserError: `online` is asked for and there is no key.
    """
    if mode is WandbMode.auto:
        wanted = environment.get("WANDB_MODE", "")
        if wanted in ("offline", "dryrun", "disabled"):
            return WandbMode.disabled if wanted == "disabled" else WandbMode.offline
        return WandbMode.online if has_key(environment) else WandbMode.offline
    if mode is WandbMode.online and not has_key(environment):
        raise UserError("wandb.mode=online needs a key: set WANDB_API_KEY or run `wandb login`, or use wandb=offline")
    return mode


def mode_of(settings: WandbSettings, environment: Mapping[str, str] = os.environ) -> WandbMode:
    """The same for any tracker: one of the user's own is online unless told otherwise, and sees to its key itself.

    Raises:
        UserError: as `resolve_mode`.
    """
    if is_wandb(settings):
        return resolve_mode(settings.mode, environment)
    return WandbMode.online if settings.mode is WandbMode.auto else settings.mode


def is_wandb(settings: WandbSettings) -> bool:
    """Whether the tracker is W&B itself."""
    return target_of(settings.sink)[0] == "wandb"
