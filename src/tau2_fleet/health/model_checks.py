"""Checks of the models that are asked over the network, of keys, and of W&B; for the doctor. No key is ever shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from importlib.util import find_spec
from urllib.parse import urlsplit

from tau2_fleet.config.lifetimes import known_lifetimes, refusal
from tau2_fleet.config.lifetimes import warning as ending
from tau2_fleet.errors import UserError
from tau2_fleet.extensions import resolve_target, target_of
from tau2_fleet.fleet.pools import model_key
from tau2_fleet.health.finding import Finding, note, ok, problem, warning
from tau2_fleet.invocation import install_hint
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import find_key, key_name
from tau2_fleet.llm.lifetime import NONE_ANNOUNCED, ModelEnd, lifetime_of, model_ends
from tau2_fleet.llm.preflight import preflight, shutdown_dates
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking.mode import has_key, is_wandb, mode_of
from tau2_fleet.tracking.sink import FOLDER, KEY

KNOWN_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TOGETHER_API_KEY", "NEBIUS_API_KEY", "WANDB_API_KEY")


def check_keys(models: Mapping[str, ModelSettings]) -> Finding:
    """Which keys are there, and whether those that are needed are among them.

    Args:
        models: by role, those that this run can call.
    """
    needed: dict[str, list[str]] = {}
    for role, settings in models.items():
        name = key_name(settings)
        if name is not None:
            needed.setdefault(name, []).append(role)
    missing = [name for name, roles in needed.items() if find_key(models[roles[0]]) is None]
    names = list(dict.fromkeys((*needed, *KNOWN_KEYS)))
    shown = ", ".join(f"{name} {'present' if os.environ.get(name) else 'not set'}" for name in names)
    if missing:
        whom = "; ".join(f"{name} for {', '.join(needed[name])}" for name in missing)
        roles = [role for name in missing for role in needed[name]]
        others = ", ".join(f"llm@{model_key(role)}=NAME" for role in roles)
        advice = f"set them in the environment or in .env, or choose other models (any of conf/llm): {others}"
        return problem("keys", f"missing: {whom} ({shown})", advice)
    if not needed:
        return note("keys", f"none is needed here ({shown})")
    return ok("keys", ", ".join(f"{name} present" for name in needed))


async def check_lifetimes(
    models: Mapping[str, ModelSettings], calls: bool, today: date, experiment: str | None
) -> list[Finding]:
    """Which models have ended, or are about to.

    Args:
        models: by role, those that this run can call.
        calls: False: OpenAI is not asked, the files alone count.
        experiment: the recipe that the configuration started from.
    """
    told = {}
    if calls:
        async with HttpPool() as http:
            told = await shutdown_dates(models, http)
    return list(_lifetimes(models, model_ends(models, known_lifetimes(), told), today, experiment))


def _lifetimes(
    models: Mapping[str, ModelSettings], ends: list[ModelEnd], today: date, experiment: str | None
) -> Iterator[Finding]:
    ended = [end for end in ends if end.is_over(today)]
    if ended:
        which, ways = refusal(ended, experiment).splitlines()
        yield problem("lifetime", which, ways)
    for end in ends:
        if end.is_near(today):
            which, _, way = ending(end, today).partition("; ")
            yield warning("lifetime", which, way)
        elif not end.is_over(today):
            yield ok("lifetime", f"{', '.join(end.roles)}: {end.model} ends on {end.ends}")
    ending_roles = {role for end in ends for role in end.roles}
    for role, settings in models.items():
        stated = lifetime_of(settings, known_lifetimes())
        if stated is not None and stated.ends == NONE_ANNOUNCED and role not in ending_roles:
            yield ok("lifetime", f"{role}: {stated.model}, no end announced (looked {stated.looked})")


async def check_remote(models: Mapping[str, ModelSettings], calls: bool) -> list[Finding]:
    """One cheap call to each remote model whose key is there.

    Args:
        models: by role.
        calls: False: nothing is asked.
    """
    remote: dict[str, ModelSettings] = {}
    for role, settings in models.items():
        has_its_key = key_name(settings) is None or find_key(settings) is not None
        if not settings.provider.is_pool and has_its_key and settings not in remote.values():
            remote[role] = settings
    if not calls:
        return [
            note("model", f"{role}: {settings.model} was not asked (--no-calls)") for role, settings in remote.items()
        ]
    findings = []
    async with HttpPool() as http:
        for role, settings in remote.items():
            try:
                await preflight({role: settings}, http)
            except UserError as error:
                advice = (
                    f"choose another model with llm@{model_key(role)}=NAME, or mend its keys at {model_key(role)}.*"
                )
                findings.append(problem("model", str(error).strip().splitlines()[-1].strip(), advice))
            else:
                findings.append(ok("model", f"{role}: {settings.model} answers"))
    return findings


async def check_wandb(settings: WandbSettings) -> Finding:
    """What `wandb` will do, and whether it can."""
    try:
        mode = mode_of(settings)
        if not is_wandb(settings) and mode is not WandbMode.disabled:
            resolve_target(settings.sink, KEY, FOLDER)
            return ok("tracker", f"{target_of(settings.sink)[0]}, {mode}")
    except UserError as error:
        return problem("W&B", str(error))
    if mode is WandbMode.disabled:
        return note("W&B", "disabled")
    if find_spec("wandb") is None:
        return warning("W&B", "the package wandb is not installed", f"{install_hint()}, or wandb=disabled")
    if mode is WandbMode.offline:
        why = "no key (WANDB_API_KEY)" if settings.mode is WandbMode.auto and not has_key() else "as asked"
        return ok("W&B", f"offline, {why}; the end of a run says how to sync")
    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if not await _reachable(url):
        return warning(
            "W&B", f"online, but {urlsplit(url).hostname} cannot be reached", "runs are kept offline instead"
        )
    return ok("W&B", f"online, project {settings.project}, key present")


async def _reachable(url: str) -> bool:
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(trust_env=True) as http,
            http.head(url, timeout=aiohttp.ClientTimeout(total=5), allow_redirects=False),
        ):
            return True
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
