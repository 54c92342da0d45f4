"""The models of a configuration, each by the key that describes it."""

from __future__ import annotations

from tau2_fleet.config.schema import Config
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider
from tau2_fleet.llm.token_ids import ASKING

AGENT_POOL = "agent"
"""The pool that `server` describes; a model of another role may name it to share its servers."""


def model_settings(config: Config) -> dict[str, ModelSettings]:
    """Every model but the agent's and a switched-off judge, by its key (`user_llm`, `experts.expert_3.fallback`)."""
    models: dict[str, ModelSettings] = {"user_llm": config.user_llm}
    if config.judge.enabled:
        models["judge"] = config.judge
    for name, expert in config.experts.members().items():
        key = f"experts.{name.replace('-', '_')}"
        models[f"{key}.llm"] = expert.llm
        if expert.fallback is not None:
            models[f"{key}.fallback"] = expert.fallback
    return models


def agent_model(config: Config) -> ModelSettings:
    """The agent as a model like the others: what is sent from `agent`, its pool from `server`."""
    agent, server = config.agent, config.server
    return ModelSettings(
        provider=Provider.simulated if server.kind_name == "simulated" else Provider.vllm,
        model=agent.model,
        temperature=agent.temperature,
        top_p=agent.top_p,
        max_output_tokens=agent.max_output_tokens,
        max_context_tokens=agent.max_context_tokens,
        sends_seed=agent.sends_seed,
        thinking_history=config.agent.thinking_history,
        extra_body={**(ASKING if agent.return_token_ids else {}), **agent.extra_body},
        price=agent.price,
        pool=PoolSettings(
            name=AGENT_POOL,
            model=agent.model,
            num=server.num,
            tensor_parallel_size=server.tensor_parallel_size,
            tool_call_parser=server.tool_call_parser,
            extra_args=server.extra_args,
            endpoints=list(server.endpoints),
            api_key_env=server.api_key_env,
            api_key_file=server.api_key_file,
            basic_auth_env=server.basic_auth_env,
        ),
    )
