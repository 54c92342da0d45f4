"""Who plays a run's simulations: this process, or others (`shard_processes.py`); `experiment.py` chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.simulation.domain_context import DomainContext
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
