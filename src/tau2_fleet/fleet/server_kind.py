"""What a kind of server is: where the servers of a pool come from, what they need, how they are started; and the pool.

A kind is a file of `tau2_fleet.fleet.kinds`, or a class anywhere that `server.kind` names; planning, preparing and
launching ask it and know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import Choice, make

if TYPE_CHECKING:
    from tau2_fleet.fleet.settings import ServerSettings

_FOLDER = "tau2_fleet.fleet.kinds"


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How to start one server."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the allow-listed part of this process's own environment."""
    needs_hub: bool = False
    """It gets the hub's token, where there is one."""
    compiles: bool = False
    """Its compile caches are kept across runs."""
    cwd: Path | None = None
    """null: the runner's."""


Starter = Callable[["Placement", str, int], ServerCommand]
"""From a replica's place, the address to listen on and the port to the command that serves there."""
RunTool = Callable[[list[str], Path, float | None, bool], Awaitable[tuple[int, str]]]
"""Runs a program to its end as servers are run: command, log, limit in seconds, whether it gets the hub's token; exit
status and output. Raises TimeoutError beyond the limit."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a kind has at hand to get its servers ready to be launched."""

    server: ServerSettings
    pools: tuple[PoolSpec, ...]
    """Those of this kind."""
    devices: Sequence[str] | None
    """What servers may be given; None: they run on the CPU."""
    logs: Path
    tasks_file: Path | None
    """The tasks of the run, for servers that play them."""
    run_tool: RunTool
    here: bool = True
    """Whether servers find this machine's programs and files."""


class ServerKind(Protocol):
    """Where the servers of a pool come from.

    Every server must answer `/health`, `/v1/models` and `/v1/chat/completions` as OpenAI's does; one that is launched
    finds the key to ask for in VLLM_API_KEY.
    """

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def launched(self) -> bool:
        """Whether the fleet starts, restarts and ends these servers."""
        ...

    def problems(self, server: ServerSettings, model: str | None) -> Iterator[str]:
        """What of `server` and `agent.model` cannot be with servers of this kind; a line or two each."""
        ...

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        """The agent's pool.

        Raises:
            UserError: a key is missing or wrong.
        """
        ...

    def gpus_per_replica(self, spec: PoolSpec) -> int:
        """GPUs that one replica takes; 0: none."""
        ...

    def check(self, pools: Sequence[PoolSpec], server: ServerSettings, tasks_file: Path | None) -> None:
        """Raises UserError when something is missing here, such as a program or a model."""
        ...

    def devices(self, server: ServerSettings) -> list[str] | None:
        """Entries for CUDA_VISIBLE_DEVICES that servers may be given; None: they run on the CPU."""
        ...

    def on_cpu(self, server: ServerSettings) -> bool:
        """Whether servers that could have GPUs are to do without, on hosts elsewhere."""
        ...

    async def prepare(self, preparation: Preparation) -> Starter:
        """All that is done once before the first launch.

        Raises:
            UserError: these servers cannot be launched.
        """
        ...


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
    endpoint_keys: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    """External pools only: the keys of endpoints that have one of their own, by URL."""
    needs_tools: bool = True
    """Whether its preflight must find a fitting tool-call parser."""
    sends_seed: bool = True
    """Whether its requests carry a seed, the preflight's too."""
    thinking_history: str = "none"
    """What of their thinking its models get back; `tau2_fleet.llm.settings.ThinkingHistory` says what there is."""
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
    sharing: int = 1
    """How many replicas of the plan have the most shared of its devices."""

    @property
    def name(self) -> str:
        return f"{self.pool.name}/{self.index}"


class WithoutDevices:
    """The common part of kinds that take no GPUs and have nothing to be checked."""

    def gpus_per_replica(self, spec: PoolSpec) -> int:
        return 0

    def check(self, pools: Sequence[PoolSpec], server: ServerSettings, tasks_file: Path | None) -> None:
        return

    def devices(self, server: ServerSettings) -> list[str] | None:
        return []

    def on_cpu(self, server: ServerSettings) -> bool:
        return False


class UnlaunchedKind(WithoutDevices):
    """The common part of kinds of which the fleet starts no server."""

    launched = False

    async def prepare(self, preparation: Preparation) -> Starter:
        raise RuntimeError("there is nothing to launch")


class LaunchedKind(WithoutDevices):
    """The common part of kinds whose servers the fleet starts; a kind of one's own needs `name` and `command`."""

    name = ""
    launched = True
    keeps_alive = False
    """Whether its servers leave idle connections open for `llm.endpoints.OWN_IDLE_S`."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        """Of kind and options alone: jobs of a sweep share their servers where these are the same."""
        return f"{type(self).__module__}.{type(self).__qualname__}({sorted(vars(self).items())})"

    def problems(self, server: ServerSettings, model: str | None) -> Iterator[str]:
        if server.endpoints or server.model_config is not None:
            told = f"read with server=external only, not {server.kind_name}"
            yield f"server.endpoints and server.model_config are {told}"
        if server.min_ready > server.num:
            yield f"server.min_ready={server.min_ready}: more than server.num={server.num}"

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        return PoolSpec(
            name=name,
            kind=self,
            model=model or name,
            num=server.num,
            tensor_parallel_size=server.tensor_parallel_size,
            tool_call_parser=server.tool_call_parser,
            chat_template=server.chat_template,
            extra_args=server.extra_args,
            min_ready=server.min_ready,
            may_shrink=True,
        )

    async def prepare(self, preparation: Preparation) -> Starter:
        def start(placement: Placement, host: str, port: int) -> ServerCommand:
            return ServerCommand(self.command(placement, host, port), self.environment(placement))

        return start

    def command(self, placement: Placement, host: str, port: int) -> list[str]:
        """The command line of one server; a kind that starts its servers otherwise has a `prepare` of its own.

        Raises:
            UserError: the kind has neither.
        """
        raise UserError(f"server.kind: {type(self).__name__} has neither `command` nor `prepare`, so nothing can start")

    def environment(self, placement: Placement) -> dict[str, str]:
        """What one server needs in its environment beside the allow-listed part of the user's own."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(placement.devices)} if placement.devices else {}


def server_kind(choice: Choice) -> ServerKind:
    """The kind that `server.kind` names.

    Raises:
        UserError: there is none like it, or it cannot be made.
    """
    return make(choice, "server.kind", _FOLDER, ServerKind)


def devices_for(kinds: Iterable[ServerKind], server: ServerSettings) -> list[str] | None:
    """The GPUs of the first kind that uses any; None when servers run on the CPU, empty when nobody asks for one."""
    for kind in kinds:
        if (found := kind.devices(server)) != []:
            return found
    return []
