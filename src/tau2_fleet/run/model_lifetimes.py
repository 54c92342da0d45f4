"""Whether the models of a run can be asked: refused or told before anything is started; `execution.py` asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from tau2_fleet.config.lifetimes import known_lifetimes, refusal, warning
from tau2_fleet.errors import UserError
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.lifetime import model_ends
from tau2_fleet.llm.preflight import preflight, shutdown_dates
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.run.plan import RunPlan

log = logging.getLogger(__name__)


async def try_models(plan: RunPlan, http: HttpPool, today: date, begun: Path | None) -> None:
    """That the models elsewhere live, can be asked, and take what they will be sent.

    Args:
        begun: the run directory, where the run goes on with an earlier attempt.

    Raises:
        UserError: what is wrong with which of them.
    """
    models = plan.models.by_name()
    await refuse_ended_models(models, http, today, experiment=plan.config.experiment_name, begun=begun)
    with_tools = list(plan.models.experts)
    if plan.models.user is not None and not plan.models.user.provider.is_pool:
        domains = plan.benchmark.values()
        for domain in domains:
            await asyncio.to_thread(domain.load)
        with_tools += ["user"] if any(domain.user_tools for domain in domains) else []
    await preflight(models, http, with_tools)


async def refuse_ended_models(
    models: Mapping[str, ModelSettings], http: HttpPool, today: date, *, experiment: str | None, begun: Path | None
) -> None:
    """Warn of models whose end is near; what OpenAI itself says of it counts more than the files.

    Args:
        models: by role, those that this run can call.
        experiment: the recipe that the run started from.
        begun: the run directory, where the run goes on with an earlier attempt.

    Raises:
        UserError: one has ended.
    """
    ends = model_ends(models, known_lifetimes(), await shutdown_dates(models, http))
    ended = [end for end in ends if end.is_over(today)]
    if ended:
        raise UserError(refusal(ended, experiment, begun))
    for end in ends:
        if end.is_near(today):
            log.warning("%s", warning(end, today))
