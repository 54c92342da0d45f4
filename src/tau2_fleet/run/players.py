"""Who plays a run's simulations: this process, or others (`shard_processes.py`); `execution.py` opens them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatModel
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.run.attempt import Attempt
from tau2_fleet.run.shard_messages import Beginning
from tau2_fleet.run.shard_processes import ShardProcesses
from tau2_fleet.simulation.domain_context import DomainContext
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.sessions import PromptSink
from tau2_fleet.simulation.simulate import Simulation, SimulationJob

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task


class Players(Protocol):
    """Plays simulations."""

    async def play(self, job: SimulationJob) -> tuple[Record, str | None]:
        """One simulation: its record, and why the run had better stop, if so."""
        ...

    def cancel(self, key: SimulationKey, reason: str) -> bool:
        """End one here, as an infrastructure error; False: it is not in flight."""
        ...


class PlayersHere:
    """All of them in this process's event loop."""

    def __init__(
        self, contexts: Mapping[str, DomainContext], tasks: Mapping[tuple[str, str], Task], keep_prompt: PromptSink
    ) -> None:
        self._contexts = contexts
        self._tasks = tasks
        self._keep_prompt = keep_prompt
        self._playing: dict[SimulationKey, Simulation] = {}

    async def play(self, job: SimulationJob) -> tuple[Record, str | None]:
        """See `Players.play`."""
        key = job.key
        simulation = Simulation(self._contexts[key.domain], self._tasks[key[:2]], job, self._keep_prompt)
        self._playing[key] = simulation
        try:
            return await simulation.run(), simulation.fatal
        finally:
            del self._playing[key]

    def cancel(self, key: SimulationKey, reason: str) -> bool:
        """See `Players.cancel`."""
        simulation = self._playing.get(key)
        return simulation is not None and simulation.cancel(reason)


@asynccontextmanager
async def open_players(
    attempt: Attempt,
    fleet: Fleet,
    models: Roles[ModelSettings],
    clients: Roles[ChatModel],
    keep_prompt: PromptSink,
    limit_usd: float | None,
) -> AsyncIterator[Players]:
    """Those of one attempt.

    Args:
        models: under the names that their servers gave.
        clients: for simulations that are played here; shard processes make their own.
        limit_usd: what all processes together may spend; None: no limit.
    """
    if attempt.config.shards > 1:
        async with _shard_processes(attempt, fleet, models, keep_prompt, limit_usd) as processes:
            yield processes
        return
    pause = attempt.in_flight.limiters.pause
    async with attempt.plan.opened(attempt.run_dir) as plan:
        settings = plan.simulation_settings(attempt.run_id, attempt.number, clients, models, pause)
        contexts = {name: DomainContext(plan.benchmark[name], settings) for name in plan.selection.tasks}
        yield PlayersHere(contexts, attempt.schedule.tasks, keep_prompt)


def _shard_processes(
    attempt: Attempt, fleet: Fleet, models: Roles[ModelSettings], keep_prompt: PromptSink, limit_usd: float | None
) -> ShardProcesses:
    named = attempt.plan.models.unnamed()
    count = min(attempt.config.shards, len(attempt.schedule.jobs))
    beginning = Beginning(
        run_dir=str(attempt.run_dir),
        run_id=attempt.run_id,
        attempt=attempt.number,
        names={role: model.model for role, model in models.by_name().items() if role in named and model.model},
        pools=tuple(spec.name for spec in fleet.pools),
        simulations=-(-attempt.in_flight.most // count),
        limit_usd=limit_usd,
        in_sweep=attempt.in_sweep,
    )
    routers = {name: fleet.router(name) for name in beginning.pools}
    return ShardProcesses(count, beginning, routers, keep_prompt, attempt.in_flight.limiters.pause)
