"""How many simulations of a run are in flight: what bounds them, who steers them, and what would have been faster."""

from __future__ import annotations

import logging

from tau2_fleet.batch.auto_concurrency import AutoConcurrency
from tau2_fleet.batch.lengths import ExpectedLengths
from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.batch.server_load import ServerLoad
from tau2_fleet.batch.settings import MOST_IN_FLIGHT, PAID_IN_FLIGHT
from tau2_fleet.batch.steering import Steering
from tau2_fleet.config import Config
from tau2_fleet.display.console import wide
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.limits import most_for_files, raise_open_files
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.telemetry.events import Listener

log = logging.getLogger(__name__)

_A_PROCESS = 5_500
"""Simulations that one process plays with some of a core to spare."""


class RunConcurrency:
    """The simulations that one run, or its part of a sharded one, plays at once."""

    def __init__(self, config: Config, schedule: Schedule, lengths: ExpectedLengths) -> None:
        """
        Args:
            schedule: what is left to run.
            lengths: how long that is expected to take.
        """
        self._config = config
        self._left = len(schedule.jobs)
        shard = schedule.shard
        most = shard.share(config.most_in_flight)
        self.most = most_for_files(most) if config.auto_concurrency else most
        self.limiters = Limiters(most={name: max(1, shard.share(most)) for name, most in config.paid_in_flight.items()})
        self._auto = AutoConcurrency(
            {job.key: lengths.by_task[job.key[:2]] for job in schedule.jobs},
            self.limiters.of_providers,
            counted=lengths.counted,
            most=most_for_files(shard.share(MOST_IN_FLIGHT)),
        )
        self.load = ServerLoad()

    @property
    def at_first(self) -> int:
        """With how many a run begins."""
        return 1 if self._config.auto_concurrency else self.most

    @property
    def listeners(self) -> list[Listener]:
        """Who must hear the run's events."""
        return [self._auto.listen, self.load.listen]

    def warn(self) -> None:
        """Say so where more are wanted than processes keep up with."""
        if self.most > _A_PROCESS * self._config.shards:
            log.warning(
                "max_concurrency=%d is more than %d processes keep up with; shards=%d would",
                self.most,
                self._config.shards,
                -(-self.most // _A_PROCESS),
            )

    def raise_open_files(self) -> None:
        """Let this process have as many open files as they need."""
        raise_open_files(min(self.most, self._left))

    async def steering(self, runner: Runner, fleet: Fleet) -> Steering:
        """Who sets their number; with `max_concurrency=auto` it follows the servers."""
        for endpoint in fleet.endpoints():
            self._auto.ready(endpoint.name)
        if self._config.auto_concurrency:
            await fleet.sample()

        def enough(number: int) -> int:
            raise_open_files(min(number, self._left))
            return most_for_files(number)

        return Steering(
            self._auto,
            runner,
            on=self._config.auto_concurrency,
            enough=enough,
            paid=lambda: self.limiters.bound(PAID_IN_FLIGHT),
        )

    def tell(self, *, by_hand: bool) -> None:
        """Print how busy the servers were, and what would have been faster where that is sure.

        Args:
            by_hand: somebody changed the number while the run went on.
        """
        for line in self.load.told():
            wide.print(line, markup=False, soft_wrap=True)
        gates = self.limiters.of_providers()
        default = {name: gate.most for name, gate in gates.items() if self._is_default(name)}
        refused = {name: gate.refused for name, gate in gates.items()}
        number = None if self._config.auto_concurrency or by_hand else self.most
        for line in self.load.advice(number, self._left, default, refused):
            wide.print(f"faster: {line}", markup=False, soft_wrap=True)

    def _is_default(self, provider: str) -> bool:
        """Whether nobody has said how hard a paid provider may be asked."""
        settings = getattr(self._config.providers, provider.partition(" ")[0])
        return settings.max_in_flight is None and self._config.auto_concurrency
