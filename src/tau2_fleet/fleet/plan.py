"""Which replica runs where: pools laid on GPUs and ports before anything starts. Pure; the fleet calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.host import Room
from tau2_fleet.fleet.server_kind import Placement, PoolSpec
from tau2_fleet.fleet.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All replicas of a run, in port order, and what the user should know about it."""

    placements: tuple[Placement, ...]
    warnings: tuple[str, ...] = ()


def plan(
    specs: Sequence[PoolSpec],
    server: ServerSettings,
    devices: Sequence[str] | None,
    rooms: Sequence[Room] = (),
) -> FleetPlan:
    """Lay pools on devices and ports.

    Args:
        specs: the pools, in the order of their ports; external ones take neither port nor GPU.
        server: for `start_port` (0: any free ports) and `strict`.
        devices: what servers may be given, each entry once (an entry that is repeated is shared by as many
            replicas); None: they run on the CPU.
        rooms: the hosts that have these devices; none: this machine has them. A replica runs on one host, and those
            elsewhere are given their devices when they start.

    Raises:
        UserError: the pools do not fit, or a number is impossible; names keys, what is needed and what there is.
    """
    rooms = rooms or (Room("", None if devices is None else tuple(devices)),)
    launched = [spec for spec in specs if spec.kind.launched]
    for spec in launched:
        if spec.num < 1:
            raise UserError(f"{spec.num_key}={spec.num}: a pool needs at least one replica")
    counts, warnings = _counts(launched, server, rooms)
    for spec, count in zip(launched, counts, strict=True):
        if spec.min_ready > count:
            raise UserError(f"server.min_ready={spec.min_ready} cannot be met: pool {spec.name} has {count} replica(s)")
    last_port = server.start_port + sum(counts) - 1
    if server.start_port and not 1 <= server.start_port <= last_port <= 65535:
        raise UserError(
            f"server.start_port={server.start_port}: {sum(counts)} replica(s) need ports up to {last_port}, "
            "and 65535 is the last"
        )
    placements: list[Placement] = []
    left = [_Left.of(room) for room in rooms]
    for spec, count in zip(launched, counts, strict=True):
        for index in range(count):
            port = server.start_port + len(placements) if server.start_port else 0
            own = _take(left, spec.gpus_per_replica)
            placements.append(Placement(spec, index, port, () if rooms[0].host else own))
    return FleetPlan(tuple(_with_sharing(placements)), tuple(warnings))


def _with_sharing(placements: Sequence[Placement]) -> Iterator[Placement]:
    users = Counter(device for placement in placements for device in placement.devices)
    for placement in placements:
        yield replace(placement, sharing=max((users[device] for device in placement.devices), default=1))


def _counts(pools: Sequence[PoolSpec], server: ServerSettings, rooms: Sequence[Room]) -> tuple[list[int], list[str]]:
    """Replicas of each pool that the rooms hold."""
    counts = [spec.num for spec in pools]
    if _fits(pools, counts, rooms):
        return counts, []
    there = [device for room in rooms for device in room.devices or ()]
    widest = max((len(set(room.devices or ())) for room in rooms), default=0)
    for spec in pools:
        if any(room.devices is not None for room in rooms) and spec.gpus_per_replica > widest:
            where = "on one host" if rooms[0].host else "there"
            raise UserError(
                f"pool {spec.name}: a replica needs {spec.gpus_per_replica} GPU(s) (its tensor_parallel_size and "
                f"extra_args), {where} {_are(widest)}: {_no_gpu_hint(there)}"
            )
    shrunk = list(counts)
    for position, spec in enumerate(pools):
        while spec.may_shrink and shrunk[position] > 1 and not _fits(pools, shrunk, rooms):
            shrunk[position] -= 1
    need = sum(spec.gpus_per_replica * count for spec, count in zip(pools, counts, strict=True))
    listing = ", ".join(
        f"{spec.num_key}={count} x {spec.gpus_per_replica}"
        for spec, count in zip(pools, counts, strict=True)
        if spec.gpus_per_replica
    )
    available = f"there {_are(len(there))}" + (f" on {len(rooms)} host(s)" if rooms[0].host else "")
    wanted = f"{need} GPUs"
    if not need:
        wanted, listing = "room", f"{sum(counts)} replicas"
        most = sum(room.most or 0 for room in rooms)
        available = f"{len(rooms)} host(s) take {most} replica(s) by hosts.per_host"
    if not _fits(pools, shrunk, rooms) or server.strict:
        why = " (server.strict=true)" if _fits(pools, shrunk, rooms) else ""
        raise UserError(
            f"the fleet needs {wanted} ({listing}), {available}{why}: "
            "lower these keys, or put a pool elsewhere with its `endpoints`"
        )
    warnings = [
        f"{spec.num_key}={spec.num} needs {wanted} in all ({listing}), {available}: "
        f"{count} replica(s) of pool {spec.name} are launched"
        for spec, count in zip(pools, shrunk, strict=True)
        if count < spec.num
    ]
    return shrunk, warnings


@dataclass(slots=True)
class _Left:
    """What is left of one host's room."""

    devices: list[str] | None
    places: int | None

    @classmethod
    def of(cls, room: Room) -> _Left:
        return cls(None if room.devices is None else list(room.devices), room.most)


def _fits(pools: Sequence[PoolSpec], counts: Sequence[int], rooms: Sequence[Room]) -> bool:
    left = [_Left.of(room) for room in rooms]
    try:
        for spec, count in zip(pools, counts, strict=True):
            for _ in range(count):
                _take(left, spec.gpus_per_replica)
    except LookupError:
        return False
    return True


def _take(left: Sequence[_Left], count: int) -> tuple[str, ...]:
    """Remove `count` different devices of one host, the first ones that there are; none where it has no list."""
    for host in left:
        if host.places == 0:
            continue
        chosen = list(dict.fromkeys(host.devices or ()))[:count]
        if len(chosen) < count and host.devices is not None:
            continue
        for device in chosen:
            assert host.devices is not None
            host.devices.remove(device)
        if host.places is not None:
            host.places -= 1
        return tuple(chosen)
    raise LookupError("not enough devices")


def _are(count: int) -> str:
    return f"is {count}" if count == 1 else f"are {count}"


def _no_gpu_hint(devices: Sequence[str]) -> str:
    if devices:
        return "lower tensor_parallel_size, or name more in server.gpu_ids"
    return "set server.device=cpu (a CPU build of vLLM), server=external or server=simulated"
