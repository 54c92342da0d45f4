"""Which pools a run has: the agent's from `server.*`, those of local users, experts and judges from their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import named_servers, read_key
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.server_kind import PoolSpec, server_kind
from tau2_fleet.fleet.settings import ServerSettings

AGENT_POOL = "agent"
_DEFAULT_PARSER = "hermes"


class PoolLike(Protocol):
    """What `tau2_fleet.llm.settings.PoolSettings` says of a pool."""

    name: str
    model: str | None
    num: int
    tensor_parallel_size: int
    tool_call_parser: str | None
    extra_args: str
    endpoints: list[str]
    model_config: str | None
    api_key_env: str | None
    api_key_file: str | None
    basic_auth_env: str | None


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model of provider `vllm` or `simulated` beside the agent's."""

    key: str
    """Where it stands in the configuration: `user_llm`, `judge`, `experts.expert-1`."""
    simulated: bool
    model: str | None
    pool: PoolLike
    needs_tools: bool = True
    sends_seed: bool = True
    thinking_history: str = "none"


class ModelLike(Protocol):
    """What `tau2_fleet.llm.settings.ModelSettings` says of a model that a pool serves."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    @property
    def pool(self) -> PoolLike | None: ...

    @property
    def sends_seed(self) -> bool: ...

    @property
    def thinking_history(self) -> str: ...


def local_models(by_role: Mapping[str, ModelLike], *, user_has_tools: bool = True) -> list[LocalModel]:
    """The models of these roles that pools serve, beside the agent's, under the keys that describe them.

    Args:
        user_has_tools: whether the customer has tools of its own in any of the domains.
    """
    without_tools = {"judge"} if user_has_tools else {"judge", "user"}
    return [
        LocalModel(
            key=model_key(role),
            simulated=model.provider == "simulated",
            model=model.model,
            pool=model.pool,
            needs_tools=role not in without_tools,
            sends_seed=model.sends_seed,
            thinking_history=model.thinking_history,
        )
        for role, model in by_role.items()
        if role != AGENT_POOL and model.provider in ("vllm", "simulated") and model.pool is not None
    ]


def model_key(role: str) -> str:
    """Where the model of a role (`user`, `judge`, `expert-1`) stands in the configuration."""
    if role.startswith("expert"):
        return f"experts.{role.replace('-', '_')}.llm"
    return "user_llm" if role == "user" else role


def pool_specs(
    server: ServerSettings,
    agent_model: str | None,
    agent_simulated: bool,
    others: Sequence[LocalModel],
    *,
    agent_sends_seed: bool = True,
    agent_thinking: str = "none",
) -> list[PoolSpec]:
    """The pools of a run, in the order of their ports: the agent's, then the others as they come.

    Args:
        server: the agent's pool.
        agent_model: path, hub id or name; needed for `server=vllm`.
        agent_simulated: the agent's provider is `simulated`, whatever `server` is.
        others: user, experts, judge, in this order. The same pool name means the same pool.
        agent_sends_seed: whether requests of the agent carry a seed.
        agent_thinking: what of its thinking the agent gets back.

    Raises:
        UserError: a model or key is missing, or two models want the same pool to be different.
    """
    kind = Simulated() if agent_simulated else server_kind(server.kind)
    pool = kind.agent_pool(AGENT_POOL, server, agent_model)
    specs = [replace(pool, sends_seed=agent_sends_seed, thinking_history=agent_thinking)]
    for other in others:
        spec = _other_pool(other, specs[0])
        spec = replace(spec, sends_seed=other.sends_seed, thinking_history=other.thinking_history)
        same = next((known for known in specs if known.name == spec.name), None)
        if same is None:
            specs.append(spec)
        else:
            specs[specs.index(same)] = _joined(same, spec, other)
    return specs


def _other_pool(other: LocalModel, agent: PoolSpec) -> PoolSpec:
    wish = other.pool
    num_key = f"{other.key}.pool.num"
    model = wish.model or other.model
    if other.simulated:
        return PoolSpec(
            name=wish.name,
            kind=Simulated(),
            model=model or wish.name,
            num=wish.num,
            tool_call_parser=None,
            num_key=num_key,
            needs_tools=other.needs_tools,
        )
    if wish.endpoints or wish.model_config:
        urls, keys = named_servers(wish.endpoints, wish.model_config, model, f"{other.key}.pool")
        return PoolSpec(
            name=wish.name,
            kind=External(),
            model=model,
            num=len(urls),
            tool_call_parser=wish.tool_call_parser,
            endpoints=urls,
            endpoint_keys=keys,
            api_key=read_key(wish.api_key_env, wish.api_key_file, f"{other.key}.pool", wish.basic_auth_env),
            num_key=num_key,
            needs_tools=other.needs_tools,
        )
    if not model and wish.name == agent.name:
        return replace(agent, needs_tools=other.needs_tools, num_key=num_key)
    if not model:
        raise UserError(f"{other.key}.model is not set: give a checkpoint's path or a hub id for pool {wish.name}")
    return PoolSpec(
        name=wish.name,
        kind=Vllm(),
        model=model,
        num=wish.num,
        tensor_parallel_size=wish.tensor_parallel_size,
        tool_call_parser=wish.tool_call_parser or _DEFAULT_PARSER,
        extra_args=wish.extra_args,
        num_key=num_key,
        needs_tools=other.needs_tools,
    )


def _joined(known: PoolSpec, spec: PoolSpec, other: LocalModel) -> PoolSpec:
    """One pool for two models: they must agree on what is served; the first one's other keys count."""
    one_kind = known.kind == spec.kind or (not known.kind.launched and spec.kind == Vllm())
    # Simulated servers play for whoever asks; external ones say themselves what they serve.
    one_model = known.model == spec.model or known.kind == Simulated() or None in (known.model, spec.model)
    if not (one_kind and one_model):
        raise UserError(
            f"{other.key}.pool.name={spec.name}: this pool serves {known.model} ({known.kind.name}), "
            f"not {spec.model} ({spec.kind.name}): give it a name of its own"
        )
    return replace(
        known,
        needs_tools=known.needs_tools or spec.needs_tools,
        sends_seed=known.sends_seed and spec.sends_seed,
    )
