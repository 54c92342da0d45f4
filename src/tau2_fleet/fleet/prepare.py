"""Everything before the first launch: GPUs, what each kind of server needs, free ports. The fleet calls it once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import external_replicas
from tau2_fleet.fleet.host import HostLostError, Hosts, Opening, devices_of
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.launcher import Launcher
from tau2_fleet.fleet.plan import plan
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.server_kind import PoolSpec, Preparation, ServerKind
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.paths import IMPORT_ROOT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A fleet that is ready to be launched."""

    replicas: tuple[Replica, ...]
    """In the order of ports, external ones last."""
    launcher: Launcher | None
    """None: there is nothing to launch."""
    uses_gpus: bool


async def prepare_fleet(
    pools: Sequence[PoolSpec],
    server: ServerSettings,
    hosts: Hosts,
    logs: Path,
    key: str,
    tasks_file: Path | None,
    start_reaper: Callable[[], Reaper],
) -> Prepared:
    """Plan the pools and see to all that their launch needs; a hub model is downloaded here.

    `start_reaper` is called where there is something to launch, before the first process.

    Raises:
        UserError: something is missing, does not fit, or a port is taken.
    """
    external = external_replicas(pools)
    by_kind = launched_kinds(pools)
    if not by_kind:
        return Prepared(tuple(external), None, uses_gpus=False)
    logs.mkdir(parents=True, exist_ok=True)
    reaper = start_reaper()
    for kind, own in by_kind.items() if hosts.here else ():
        kind.check(own, server, tasks_file)
    rooms = await hosts.open(Opening(server, by_kind, logs, reaper))
    devices = devices_of(rooms)
    found = plan(pools, server, devices, rooms)
    for warning in found.warnings:
        log.warning("%s", warning)

    async def run_tool(command: list[str], log: Path, limit_s: float | None, needs_hub: bool) -> tuple[int, str]:
        try:
            return await hosts.run(LaunchSpec(command, {}, log, IMPORT_ROOT, needs_hub=needs_hub), limit_s)
        except HostLostError as error:
            raise UserError(f"hosts={hosts.name}: {command[0]} could not be run: {error}") from None

    starters = {
        kind: await kind.prepare(Preparation(server, own, devices, logs, tasks_file, run_tool, hosts.here))
        for kind, own in by_kind.items()
    }
    launcher = Launcher(hosts, logs, reaper, key, starters)
    replicas = launcher.replicas(found.placements)
    await launcher.check_ports(replicas)
    return Prepared((*replicas, *external), launcher, uses_gpus=bool(devices))


def launched_kinds(pools: Sequence[PoolSpec]) -> dict[ServerKind, tuple[PoolSpec, ...]]:
    """The kinds whose servers are started here, with their pools."""
    kinds = dict.fromkeys(spec.kind for spec in pools if spec.kind.launched)
    return {kind: tuple(spec for spec in pools if spec.kind == kind) for kind in kinds}
