"""Which replica runs where: pools laid on GPUs and ports before anything starts. Pure; the fleet calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.server_kind import ServerKind
from tau2_fleet.fleet.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The servers of one model."""

    name: str
    kind: ServerKind
    model: str | None = None
    """Checkpoint path, hub id, or the name a simulated server answers to; external: which of those served."""
    served_model_name: str | None = None
    """null: `model` as it is."""
    num: int = 1
    tensor_parallel_size: int = 1
    tool_call_parser: str | None = "hermes"
    chat_template: str | None = None
    extra_args: str = ""
    endpoints: tuple[str, ...] = ()
    api_key: str | None = field(default=None, repr=False)
    """External pools only; launched ones get the fleet's own key."""
    needs_tools: bool = True
    """Whether its preflight must find a fitting tool-call parser."""
    sends_seed: bool = True
    thinking_history: str = "none"
    """What of their thinking its models get back; `tau2_fleet.llm.settings.ThinkingHistory` says what there is."""
    """Whether its requests carry a seed, the preflight's too."""
    min_ready: int = 1
    may_shrink: bool = False
    """Whether fewer replicas than `num` will do when the GPUs do not hold more (the agent's pool)."""
    num_key: str = "server.num"
    """The configuration key behind `num`, named in errors."""

    @property
    def model_key(self) -> str:
        """Where the model stands in the configuration."""
        return "agent.model" if self.num_key == "server.num" else self.num_key.replace(".pool.num", ".model")

    @property
    def gpus_per_replica(self) -> int:
        """What its kind says of it."""
        return self.kind.gpus_per_replica(self)


@dataclass(frozen=True, slots=True)
class Placement:
    """One replica's place."""

    pool: PoolSpec
    index: int
    port: int
    """0: any port that is free at launch."""
    devices: tuple[str, ...]
    """Entries for CUDA_VISIBLE_DEVICES; empty: none (CPU or simulated)."""

    @property
    def name(self) -> str:
        return f"{self.pool.name}/{self.index}"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All replicas of a run, in port order, and what the user should know about it."""

    placements: tuple[Placement, ...]
    warnings: tuple[str, ...] = ()


def plan(specs: Sequence[PoolSpec], server: ServerSettings, devices: Sequence[str] | None) -> FleetPlan:
    """Lay pools on devices and ports.

    Args:
        specs: the pools, in the order of their ports; external ones take neither port nor GPU.
        server: for `start_port` (0: any free ports) and `strict`.
        devices: what servers may be given, each entry once (an entry that is repeated is shared by as many
            replicas); None: they run on the CPU.

    Raises:
        UserError: the pools do not fit, or a number is impossible; names keys, what is needed and what there is.
    """
    launched = [spec for spec in specs if spec.kind.launched]
    for spec in launched:
        if spec.num < 1:
            raise UserError(f"{spec.num_key}={spec.num}: a pool needs at least one replica")
    counts, warnings = _counts(launched, server, devices)
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
    left = list(devices or ())
    for spec, count in zip(launched, counts, strict=True):
        for index in range(count):
            port = server.start_port + len(placements) if server.start_port else 0
            own = () if devices is None else _take(left, spec.gpus_per_replica)
            placements.append(Placement(spec, index, port, own))
    return FleetPlan(tuple(placements), tuple(warnings))


def _counts(
    pools: Sequence[PoolSpec], server: ServerSettings, devices: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Replicas of each pool that the devices hold."""
    counts = [spec.num for spec in pools]
    if devices is None:
        return counts, []
    for spec in pools:
        if spec.gpus_per_replica > len(set(devices)):
            raise UserError(
                f"pool {spec.name}: a replica needs {spec.gpus_per_replica} GPU(s) (its tensor_parallel_size and "
                f"extra_args), there {_are(len(set(devices)))}: {_no_gpu_hint(devices)}"
            )
    if _fits(pools, counts, devices):
        return counts, []
    shrunk = list(counts)
    for position, spec in enumerate(pools):
        while spec.may_shrink and shrunk[position] > 1 and not _fits(pools, shrunk, devices):
            shrunk[position] -= 1
    need = sum(spec.gpus_per_replica * count for spec, count in zip(pools, counts, strict=True))
    listing = ", ".join(
        f"{spec.num_key}={count} x {spec.gpus_per_replica}"
        for spec, count in zip(pools, counts, strict=True)
        if spec.gpus_per_replica
    )
    if not _fits(pools, shrunk, devices) or server.strict:
        why = " (server.strict=true)" if _fits(pools, shrunk, devices) else ""
        raise UserError(
            f"the fleet needs {need} GPUs ({listing}), there {_are(len(devices))}{why}: "
            "lower these keys, or put a pool elsewhere with its `endpoints`"
        )
    warnings = [
        f"{spec.num_key}={spec.num} needs {need} GPUs in all ({listing}), there {_are(len(devices))}: "
        f"{count} replica(s) of pool {spec.name} are launched"
        for spec, count in zip(pools, shrunk, strict=True)
        if count < spec.num
    ]
    return shrunk, warnings


def _fits(pools: Sequence[PoolSpec], counts: Sequence[int], devices: Sequence[str]) -> bool:
    left = list(devices)
    try:
        for spec, count in zip(pools, counts, strict=True):
            for _ in range(count):
                _take(left, spec.gpus_per_replica)
    except LookupError:
        return False
    return True


def _take(left: list[str], count: int) -> tuple[str, ...]:
    """Remove `count` different devices from the list, the first ones that there are."""
    chosen: list[str] = []
    for device in left:
        if len(chosen) < count and device not in chosen:
            chosen.append(device)
    if len(chosen) < count:
        raise LookupError("not enough devices")
    for device in chosen:
        left.remove(device)
    return tuple(chosen)


def _are(count: int) -> str:
    return f"is {count}" if count == 1 else f"are {count}"


def _no_gpu_hint(devices: Sequence[str]) -> str:
    if devices:
        return "lower tensor_parallel_size, or name more in server.gpu_ids"
    return "set server.device=cpu (a CPU build of vLLM), server=external or server=simulated"
