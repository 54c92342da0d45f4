"""Which pools a run has: the agent's from `server.*`, those of local users, experts and judges from their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external import clean_url, read_key, read_model_config
from tau2_fleet.fleet.plan import PoolKind, PoolSpec
from tau2_fleet.fleet.settings import ServerKind, ServerSettings

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
    api_key_env: str | None
    api_key_file: str | None


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model of provider `vllm` or `simulated` beside the agent's."""

    key: str
    """Where it stands in the configuration: `user_llm`, `judge`, `experts.expert-1`."""
    simulated: bool
    model: str | None
    pool: PoolLike
    needs_tools: bool = True


class ModelLike(Protocol):
    """What `tau2_fleet.llm.settings.ModelSettings` says of a model that a pool serves."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    @property
    def pool(self) -> PoolLike | None: ...


def local_models(by_role: Mapping[str, ModelLike]) -> list[LocalModel]:
    """The models of these roles that pools serve, beside the agent's, under the keys that describe them."""
    return [
        LocalModel(
            key=_key(role),
            simulated=model.provider == "simulated",
            model=model.model,
            pool=model.pool,
            needs_tools=role != "judge",
        )
        for role, model in by_role.items()
        if role != AGENT_POOL and model.provider in ("vllm", "simulated") and model.pool is not None
    ]


def _key(role: str) -> str:
    if role.startswith("expert"):
        return f"experts.{role.replace('-', '_')}.llm"
    return "user_llm" if role == "user" else role


def pool_specs(
    server: ServerSettings, agent_model: str | None, agent_simulated: bool, others: Sequence[LocalModel]
) -> list[PoolSpec]:
    """The pools of a run, in the order of their ports: the agent's, then the others as they come.

    Args:
        server: the agent's pool.
        agent_model: path, hub id or name; needed for `server=vllm`.
        agent_simulated: the agent's provider is `simulated`, whatever `server` is.
        others: user, experts, judge, in this order. The same pool name means the same pool.

    Raises:
        UserError: a model or key is missing, or two models want the same pool to be different.
    """
    specs = [_agent_pool(server, agent_model, agent_simulated)]
    for other in others:
        spec = _other_pool(other, specs[0])
        same = next((known for known in specs if known.name == spec.name), None)
        if same is None:
            specs.append(spec)
        else:
            specs[specs.index(same)] = _joined(same, spec, other)
    return specs


def _agent_pool(server: ServerSettings, model: str | None, simulated: bool) -> PoolSpec:
    if simulated or server.kind is ServerKind.simulated:
        return PoolSpec(
            name=AGENT_POOL,
            kind=PoolKind.simulated,
            model=model or AGENT_POOL,
            num=server.num,
            tool_call_parser=None,
            min_ready=server.min_ready,
        )
    if server.kind is ServerKind.external:
        return _external_agent(server, model)
    if not model:
        raise UserError(
            "agent.model is not set: give a checkpoint's path or a hub id (or set CKPT_DIR), "
            "or use server=simulated or server=external"
        )
    return PoolSpec(
        name=AGENT_POOL,
        kind=PoolKind.vllm,
        model=model,
        num=server.num,
        tensor_parallel_size=server.tensor_parallel_size,
        tool_call_parser=server.tool_call_parser,
        chat_template=server.chat_template,
        extra_args=server.extra_args,
        min_ready=server.min_ready,
        may_shrink=True,
    )


def _external_agent(server: ServerSettings, model: str | None) -> PoolSpec:
    urls = [clean_url(url, "server.endpoints") for url in server.endpoints]
    if server.model_config:
        if urls:
            raise UserError("server.endpoints and server.model_config both name servers: give one of them")
        urls = list(read_model_config(Path(server.model_config), model).urls)
    if not urls:
        raise UserError("server=external needs server.endpoints=[http://host:port] or server.model_config=FILE")
    return PoolSpec(
        name=AGENT_POOL,
        kind=PoolKind.external,
        model=model,
        num=len(urls),
        tool_call_parser=server.tool_call_parser,
        endpoints=tuple(dict.fromkeys(urls)),
        api_key=read_key(server.api_key_env, server.api_key_file, "server"),
        min_ready=min(server.min_ready, len(set(urls))),
    )


def _other_pool(other: LocalModel, agent: PoolSpec) -> PoolSpec:
    wish = other.pool
    num_key = f"{other.key}.pool.num"
    model = wish.model or other.model
    if other.simulated:
        return PoolSpec(
            name=wish.name,
            kind=PoolKind.simulated,
            model=model or wish.name,
            num=wish.num,
            tool_call_parser=None,
            num_key=num_key,
            needs_tools=other.needs_tools,
        )
    if wish.endpoints:
        urls = tuple(dict.fromkeys(clean_url(url, f"{other.key}.pool.endpoints") for url in wish.endpoints))
        return PoolSpec(
            name=wish.name,
            kind=PoolKind.external,
            model=model,
            num=len(urls),
            tool_call_parser=wish.tool_call_parser,
            endpoints=urls,
            api_key=read_key(wish.api_key_env, wish.api_key_file, f"{other.key}.pool"),
            num_key=num_key,
            needs_tools=other.needs_tools,
        )
    if not model and wish.name == agent.name:
        return replace(agent, needs_tools=other.needs_tools, num_key=num_key)
    if not model:
        raise UserError(f"{other.key}.model is not set: give a checkpoint's path or a hub id for pool {wish.name}")
    return PoolSpec(
        name=wish.name,
        kind=PoolKind.vllm,
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
    one_kind = known.kind is spec.kind or (known.kind is PoolKind.external and spec.kind is PoolKind.vllm)
    # Simulated servers play for whoever asks; external ones say themselves what they serve.
    one_model = known.model == spec.model or known.kind is PoolKind.simulated or None in (known.model, spec.model)
    if not (one_kind and one_model):
        raise UserError(
            f"{other.key}.pool.name={spec.name}: this pool serves {known.model} ({known.kind}), "
            f"not {spec.model} ({spec.kind}): give it a name of its own"
        )
    return replace(known, needs_tools=known.needs_tools or spec.needs_tools)
