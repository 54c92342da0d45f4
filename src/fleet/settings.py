"""What `conf/server/*.yaml` says of the fleet; the agent's pool comes from here.

Plain dataclasses: `src.config` makes the Hydra schema of them, `src.fleet` builds the fleet from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Optional


class ServerKind(StrEnum):
    """Where the servers come from."""

    vllm = "vllm"
    external = "external"
    simulated = "simulated"


class Routing(StrEnum):
    """How a request finds its replica."""

    sticky = "sticky"
    """A session stays with its replica; a new one goes where the least work is."""
    least_loaded = "least_loaded"
    random = "random"


class Device(StrEnum):
    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


@dataclass
class SimulatedSettings:
    """How simulated servers behave (`server=simulated`, and every model of provider `simulated`)."""

    latency: Optional[str] = None
    """A profile in `data/latency/` (its name without `.yaml`) or a path; null: answers at once."""
    latency_scale: float = 1.0
    call_expert_rate: float = 0.0
    """Share of agent turns that are handed to an expert first, when experts are offered."""


@dataclass
class ServerSettings:
    """The fleet of a run. Ports: replica i of the agent's pool listens on `start_port + i`."""

    kind: ServerKind = ServerKind.vllm
    num: int = 4
    start_port: int = 1900
    host: str = "127.0.0.1"
    gpu_ids: Optional[list[int]] = None
    """null: those visible; indices as CUDA_VISIBLE_DEVICES would take them."""
    device: Device = Device.auto
    executable: str = "vllm"
    tensor_parallel_size: int = 1
    tool_call_parser: str = "hermes"
    chat_template: Optional[str] = None
    extra_args: str = ""
    """Any `vllm serve` flags, as one string."""
    stagger_s: float = 0.0
    ready_timeout_s: float = 600.0
    min_ready: int = 1
    strict: bool = False
    """True: an error, not a warning, when the GPUs do not hold `num` replicas."""
    routing: Routing = Routing.sticky
    endpoints: list[str] = field(default_factory=list)
    """`server=external`: URLs of the agent's servers."""
    model_config: Optional[str] = None
    """`server=external`: a `model_config_local.json` as `src.serve` or the old scripts write it."""
    api_key_env: Optional[str] = None
    api_key_file: Optional[str] = None
    preflight: bool = True
    simulated: SimulatedSettings = field(default_factory=SimulatedSettings)
