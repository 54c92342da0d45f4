"""One server of the fleet and what is known of it; belongs to the process, survives an event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tau2_fleet.fleet.host import ServerProcess, Site
from tau2_fleet.fleet.probe import ServedModel, listed
from tau2_fleet.fleet.server_kind import Placement
from tau2_fleet.fleet.watch import WatchSettings
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.telemetry.events import ReplicaState, emit


class Phase(StrEnum):
    """Where a replica stands."""

    planned = "planned"
    starting = "starting"
    ready = "ready"
    """In the routing."""
    down = "down"
    """Out of the routing: it does not answer, or its process is gone."""
    restarting = "restarting"
    """Waiting for its next start."""
    failed = "failed"
    """Given up."""
    stopped = "stopped"


@dataclass(eq=False, slots=True)
class Replica:
    """A place in the fleet; its processes may come and go."""

    placement: Placement
    base_url: str
    """Without `/v1`; empty until its start has found it a place."""
    key: str | None = field(repr=False)
    log: Path | None
    """None: external."""
    expected_model: str | None
    """The model id it must show; external: the one to choose, null when there is only one."""
    phase: Phase = Phase.planned
    process: ServerProcess | None = None
    site: Site | None = None
    """Where it runs, ran last, or is to run; None: its start will find a place."""
    shown_command: str = ""
    port: int | None = None
    model: str | None = None
    context_limit: int | None = None
    restarts: int = 0
    """During the job that it serves now."""
    attempts: int = 0
    """Starts since it last served for long."""
    answered: int = 0
    """Requests that it answered between its last readiness and the end of that."""
    stalls: int = 0
    """How often it was found to answer nothing since it last answered something."""
    failure: str | None = None
    """What the last failed start looked like, for people."""
    failed_once: bool = False
    """Whether its first start failed."""
    ready_since: float | None = None
    down_since: float | None = None
    endpoint: Endpoint | None = None
    """The one in the routing now."""

    @property
    def name(self) -> str:
        return self.placement.name

    @property
    def pool(self) -> str:
        return self.placement.pool.name

    @property
    def host(self) -> str:
        """The machine that it runs on; empty: this one, or someone else's."""
        return self.site.host if self.site is not None else ""

    @property
    def external(self) -> bool:
        return not self.placement.pool.kind.launched

    def enter(self, phase: Phase, detail: str | None = None) -> None:
        """Change the phase and let telemetry know."""
        now = time.monotonic()
        if phase is Phase.ready:
            self.ready_since, self.down_since, self.failure = now, None, None
        elif self.phase is Phase.ready:
            self.down_since = now
        self.phase = phase
        emit(ReplicaState(self.name, phase.value, self.process.pid if self.process else None, self.port, detail))

    def forgive(self, watch: WatchSettings) -> None:
        """It was ready and is no more: one that served for long begins anew, its crashes are counted by time."""
        if self.ready_since is None:
            return
        well_s = (self.down_since or time.monotonic()) - self.ready_since
        if well_s > watch.forgiven_after_s or self.answered >= watch.forgiven_after_answers:
            self.attempts = 0
        if self.answered:
            self.stalls = min(self.stalls, 1)
        self.answered = 0

    def adopt(self, models: Sequence[ServedModel]) -> str:
        """Take the model's id and context from what the server shows; returns what is wrong with it, if anything."""
        ids = [model.id for model in models]
        wanted = self.expected_model
        if wanted is None and self.external and len(ids) != 1:
            return f"{self.base_url} serves {listed(ids) or 'no model'}: name one as the model"
        chosen = next((model for model in models if wanted in (None, model.id)), None)
        if chosen is None:
            return f"{self.base_url} serves {listed(ids) or 'no model'}, not {wanted}"
        self.model, self.context_limit = chosen.id, chosen.context_limit
        return ""

    def new_endpoint(self) -> Endpoint:
        """A fresh endpoint object: the router tells one time of being ready from the next by it."""
        self.endpoint = Endpoint(
            self.name,
            self.base_url,
            self.model or "",
            self.key,
            keeps_alive=getattr(self.placement.pool.kind, "keeps_alive", False),
        )
        return self.endpoint


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica, as the summary and the tools show it."""

    name: str
    pool: str
    phase: Phase
    url: str
    model: str | None
    context_limit: int | None
    """Tokens."""
    pid: int | None
    port: int | None
    restarts: int
    failure: str | None
    host: str
    """The machine that it runs on; empty: this one, or someone else's."""

    @classmethod
    def of(cls, replica: Replica) -> ReplicaStatus:
        return cls(
            name=replica.name,
            pool=replica.pool,
            phase=replica.phase,
            url=replica.base_url,
            model=replica.model,
            context_limit=replica.context_limit,
            pid=replica.process.pid if replica.process else None,
            port=replica.port,
            restarts=replica.restarts,
            failure=replica.failure,
            host=replica.host,
        )
