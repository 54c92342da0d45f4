"""What `conf/server/*.yaml` says of the fleet; the agent's pool comes from here.

Plain dataclasses: `tau2_fleet.config` makes the Hydra schema of them, `tau2_fleet.fleet` builds the fleet from
them, and the simulated servers, which get theirs as JSON on the command line, read them too: they import little.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.extensions import target_of
from tau2_fleet.key import COUNT, FROM_ZERO, POSITIVE, SHARE, Range, key


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
    aborted = "aborted"
    """Half an answer with `finish_reason` abort or the like."""
    error_inside = "error_inside"
    """Status 200 with an error in the answer or in its choice."""
    arguments_empty = "arguments_empty"
    """A call without arguments that has nothing, blanks or null where `{}` should be."""
    arguments_double = "arguments_double"
    """Arguments encoded twice."""
    tool_name_marked = "tool_name_marked"
    """Special tokens, a channel, `functions.` or blanks around a tool's name."""
    long_id = "long_id"
    """An id of a tool call that is longer than other servers take."""
    only_thinking = "only_thinking"
    """Thinking, and neither text nor call."""
    thinking_left = "thinking_left"
    """Thinking in the text, with a stop token in it."""
    usage_missing = "usage_missing"
    """No usable token counts."""
    arguments_malformed = "arguments_malformed"
    """Arguments that are no JSON object."""
    tool_unknown = "tool_unknown"
    """A call to a tool that does not exist."""
    markup_left = "markup_left"
    """A tool call as text, in the form of one of many models."""
    filtered = "filtered"
    """The finish reason of a content filter."""
    cut = "cut"
    """A text cut at its limit of tokens."""
    degenerate = "degenerate"
    """One short cycle of characters in place of the reply."""
    repeated = "repeated"
    """The same text three turns in a row."""
    gigantic = "gigantic"
    """An answer of `gigantic_bytes`."""
    crash = "crash"
    """The server process dies, with a status that says little."""


@dataclass
class FaultSettings:
    """What goes wrong on purpose, and how often."""

    rate: float = key(0.0, help="share of requests with a fault", range=SHARE)
    kinds: list[FaultKind] = key(factory=list, help="which faults happen, the costly ones more rarely; []: all")
    most_in_a_row: int = key(3, help="faults of one and the same request at most; then it succeeds", range=COUNT)
    slow_s: float = key(2.0, help="the most that the fault `slow` adds", range=FROM_ZERO)
    retry_after_s: int = key(1, help="what the fault `retry_after` asks to wait", range=FROM_ZERO)
    gigantic_bytes: int = key(40_000_000, help="size of the answer of the fault `gigantic`", range=COUNT)


@dataclass
class EngineSettings:
    """Latency that depends on tokens, on how many requests run at once and on what fits into memory."""

    on: bool = key(False, help="whether latency comes from this model of an engine")
    prefill_tokens_per_s: float = key(20_000.0, help="speed of reading prompts", range=POSITIVE)
    decode_tokens_per_s: float = key(150.0, help="speed of writing, of a request that runs alone", range=POSITIVE)
    decode_slowdown: float = key(
        0.02, help="how much each further request in the batch slows every one of them", range=FROM_ZERO
    )
    context_slowdown: float = key(
        0.0, help="the same for every 1,000 tokens of context that the batch holds", range=FROM_ZERO
    )
    max_batch: int = key(256, help="requests that run at once; the others wait", range=COUNT)
    batched_tokens: int = key(8192, help="tokens of a step: one for each that writes, the rest of prompts", range=COUNT)
    kv_tokens: int = key(
        400_000, help="memory, in tokens, of running requests and of remembered prefixes together", range=COUNT
    )
    block_tokens: int = key(16, help="tokens of a block of that memory", range=COUNT)
    output_tokens: int = key(
        0,
        help="mean length of the answers (exponentially distributed), thinking included; 0: as long as their text is",
        range=FROM_ZERO,
    )
    speed: float = key(1.0, help="how many times faster than that the clock of the engine goes", range=POSITIVE)


@dataclass
class SimulatedSettings:
    """How simulated servers behave (`server=simulated`, and every model of provider `simulated`)."""

    latency: Optional[str] = key(
        None, help="a profile of data/latency/ (its name without .yaml) or a path; null: answers at once", path=True
    )
    latency_scale: float = key(1.0, help="factor on every latency of the profile", range=FROM_ZERO)
    call_expert_rate: float = key(
        0.0, help="share of agent turns that are handed to an expert first, when experts are offered", range=SHARE
    )
    max_model_len: int = key(131072, help="context in tokens; a request beyond it is refused as vLLM does", range=COUNT)
    prefix_cache_tokens: int = key(
        0, help="without the engine: tokens of past prompts that the server remembers; 0: none", range=FROM_ZERO
    )
    seed: int = key(0, help="of every draw: latencies, experts, faults")
    engine: EngineSettings = key(factory=EngineSettings, help="latency from tokens and load")
    faults: FaultSettings = key(factory=FaultSettings, help="what goes wrong on purpose")


@dataclass
class HostsSettings:
    """On which machines the servers of a run are started."""

    kind: Any = key("local", help="set by the group: local, slurm, ssh, ray, or {_target_: my_module.MyHosts, ...}")
    names: list[str] = key(factory=list, help="hosts=ssh: the hosts, as ssh knows them: '[gpu1,gpu2]'")
    address: str = key(
        "auto", help="hosts=ray: the cluster, as HOST:PORT; auto: the one of this machine; local: one of its own, here"
    )
    per_host: Optional[int] = key(None, help="replicas on a host at most; null: as many as its GPUs hold", range=COUNT)
    spare: int = key(0, help="hosts=ssh: the last so many hosts are used only when another is lost", range=FROM_ZERO)
    interface: Optional[str] = key(
        None,
        help="where servers listen on their hosts, a network interface or an address; null: on the way to this machine",
    )
    python: Optional[str] = key(
        None,
        help="the Python of the hosts, 3.10 or newer; null: python3, with slurm the one that runs this; with ray: "
        "one of this machine that has the cluster's version of Ray",
    )
    options: list[str] = key(factory=list, help="further options of srun or ssh")
    cpus: Optional[int] = key(
        None,
        help="hosts=slurm, ray: CPUs of a replica; null: its GPUs' share of the node's, with ray none",
        range=COUNT,
    )
    start_timeout_s: float = key(60.0, help="seconds until a host must answer", range=POSITIVE)
    login_node: bool = key(False, help="true: servers may be started on a cluster's login node")


@dataclass
class ServerSettings:
    """The fleet of a run. Ports: replica i of the agent's pool listens on `start_port + i`."""

    kind: Any = key("vllm", help="set by the group: vllm, external, simulated, absent; or {_target_: my_module.My}")
    num: int = key(4, help="replicas", range=Range(1, 4096))
    start_port: int = key(1900, help="replica i listens on start_port + i; 0: any free ports", range=Range(0, 65535))
    host: str = key("127.0.0.1", help="the address that servers listen on; 0.0.0.0: every one of this machine")
    gpu_ids: Optional[list[int]] = key(
        None,
        help="which GPUs, as CUDA_VISIBLE_DEVICES counts them; one named twice takes two replicas, each with half of "
        "its memory; null: those visible",
    )
    device: Device = key(Device.auto, help="auto, cuda or cpu")
    executable: str = key(
        "vllm", help="a vllm of any environment, or a command that ends with it: 'apptainer exec FILE vllm'", path=True
    )
    tensor_parallel_size: int = key(1, help="GPUs of a replica", range=COUNT)
    tool_call_parser: str = key("hermes", help="vllm serve's parser for the model's tool calls")
    chat_template: Optional[str] = key(None, help="a template file in place of the model's own", path=True)
    extra_args: str = key("", help="any vllm serve flags, as one string")
    stagger_s: float = key(0.0, help="seconds between the starts of replicas", range=FROM_ZERO)
    ready_timeout_s: float = key(600.0, help="seconds until a replica must be ready", range=POSITIVE)
    stall_timeout_s: Optional[float] = key(
        180.0,
        help="seconds that requests may wait without a token before a replica is left; null: no limit",
        range=POSITIVE,
    )
    min_ready: int = key(1, help="replicas that are enough to go on with", range=COUNT)
    strict: bool = key(False, help="true: an error, not a warning, when the GPUs do not hold server.num replicas")
    routing: Any = key(
        "sticky",
        help="sticky (a session stays with its replica), least_loaded, random, or {_target_: my_module.MyRule, ...}",
    )
    endpoints: list[str] = key(factory=list, help="server=external: URLs of the agent's servers")
    model_config: Optional[str] = key(
        None,
        help="server=external: a model_config_local.json, of tau2-fleet serve or the old scripts; servers of several "
        "fleets stand in one, each with its key_file",
        path=True,
    )
    api_key_env: Optional[str] = key(None, help="server=external: the variable that holds their key")
    api_key_file: Optional[str] = key(None, help="server=external: a file that holds it", path=True)
    basic_auth_env: Optional[str] = key(None, help="server=external: the variable that holds their name:password")
    preflight: bool = key(True, help="try a tool call on each pool before the run")
    simulated: SimulatedSettings = key(factory=SimulatedSettings, help="how simulated servers behave", packed=True)

    @property
    def kind_name(self) -> str:
        """The name or import path of `kind`."""
        return target_of(self.kind)[0]
