"""What `conf/server/*.yaml` says of the fleet; the agent's pool comes from here.

Plain dataclasses: `tau2_fleet.config` makes the Hydra schema of them, `tau2_fleet.fleet` builds the fleet from
them, and the simulated servers, which get theirs as JSON on the command line, read them too: they import little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.extensions import target_of


class Device(StrEnum):
    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class FaultKind(StrEnum):
    """A way in which a simulated server lets one request go wrong."""

    rate_limited = "rate_limited"
    """429 without a word on when to come again."""
    retry_after = "retry_after"
    """429 with Retry-After."""
    server_error = "server_error"
    """500."""
    unavailable = "unavailable"
    """503."""
    timed_out = "timed_out"
    """408."""
    slow = "slow"
    """The right answer, late."""
    hang = "hang"
    """No answer, ever; the connection stays."""
    reset = "reset"
    """The connection is reset before a byte of the answer."""
    cut_off = "cut_off"
    """The body ends in the middle, then the connection."""
    not_json = "not_json"
    """Status 200 and a body that is no JSON."""
    wrong_types = "wrong_types"
    """JSON in which a value has a type that the API does not know there."""
    empty = "empty"
    """A reply without text and without calls."""
    malformed_call = "malformed_call"
    """A tool call whose arguments are no JSON object, or to a tool that does not exist."""
    gigantic = "gigantic"
    """An answer of `gigantic_bytes`."""
    crash = "crash"
    """The server process dies, with a status that says little."""


@dataclass
class FaultSettings:
    """What goes wrong on purpose, and how often."""

    rate: float = 0.0
    """Share of requests with a fault, 0 to 1."""
    kinds: list[FaultKind] = field(default_factory=list)
    """Those that happen, the costly ones more rarely; empty: all."""
    most_in_a_row: int = 3
    """Faults of one and the same request at most; then it succeeds."""
    slow_s: float = 2.0
    """The most that `slow` adds."""
    retry_after_s: int = 1
    gigantic_bytes: int = 40_000_000


@dataclass
class EngineSettings:
    """Latency that depends on tokens and on how many requests run at once: speeds and room of the engine."""

    on: bool = False
    prefill_tokens_per_s: float = 20_000.0
    decode_tokens_per_s: float = 150.0
    """Of a request that runs alone."""
    decode_slowdown: float = 0.02
    """How much each further request in the batch slows every one of them."""
    max_batch: int = 256
    """Requests that run at once; the others wait."""
    kv_tokens: int = 400_000
    """Room for the prompts and answers of the running requests."""
    output_tokens: int = 0
    """Mean length of the answers (exponentially distributed), thinking included; 0: as long as their text is."""


@dataclass
class SimulatedSettings:
    """How simulated servers behave (`server=simulated`, and every model of provider `simulated`)."""

    latency: Optional[str] = None
    """A profile in `data/latency/` (its name without `.yaml`) or a path; null: answers at once."""
    latency_scale: float = 1.0
    """Factor on every latency of the profile."""
    call_expert_rate: float = 0.0
    """Share of agent turns that are handed to an expert first, when experts are offered."""
    max_model_len: int = 131072
    """Context in tokens; a request beyond it is refused as vLLM does."""
    prefix_cache_tokens: int = 0
    """Tokens of past prompts that the server remembers as its prefix cache; 0: none."""
    seed: int = 0
    """Of every draw: latencies, experts, faults."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    faults: FaultSettings = field(default_factory=FaultSettings)


@dataclass
class ServerSettings:
    """The fleet of a run. Ports: replica i of the agent's pool listens on `start_port + i`."""

    kind: Any = "vllm"
    """Where the servers come from: vllm, external, simulated, or one of your own (`_target_` with its options)."""
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
    routing: Any = "sticky"
    """How a request finds its replica: sticky, least_loaded, random, or a rule of your own (`_target_` and options)."""
    endpoints: list[str] = field(default_factory=list)
    """`server=external`: URLs of the agent's servers."""
    model_config: Optional[str] = None
    """`server=external`: a `model_config_local.json` as `tau2-fleet serve` or the old scripts write it."""
    api_key_env: Optional[str] = None
    api_key_file: Optional[str] = None
    preflight: bool = True
    simulated: SimulatedSettings = field(default_factory=SimulatedSettings)

    @property
    def kind_name(self) -> str:
        """The name or import path of `kind`."""
        return target_of(self.kind)[0]
