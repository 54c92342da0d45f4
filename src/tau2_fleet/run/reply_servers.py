"""From a configuration to where each role's replies come from: what warnings about replies tell people to change."""

from __future__ import annotations

from tau2_fleet.config import Config
from tau2_fleet.config.models import AGENT_POOL
from tau2_fleet.llm.reply_watch import RoleServers
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.simulation.roles import Roles


def reply_servers(config: Config, roles: Roles[ModelSettings]) -> dict[str, RoleServers]:
    """The servers of each role, and the keys that say how they are started."""
    return {role: _servers(config, role, model, role in roles.experts) for role, model in roles.by_name().items()}


def _servers(config: Config, role: str, model: ModelSettings, is_expert: bool) -> RoleServers:
    key = f"experts.{role.replace('-', '_')}.llm" if is_expert else {"user": "user_llm"}.get(role, role)
    pool = model.pool if model.provider.is_pool else None
    if pool is None:
        return RoleServers(key, elsewhere=model.base_url or model.provider.value)
    if role == "agent" and config.server.kind_name == "external":
        return RoleServers(key, elsewhere=", ".join(pool.endpoints) or config.server.model_config)
    if pool.endpoints or pool.model_config:
        return RoleServers(key, elsewhere=", ".join(pool.endpoints) or pool.model_config)
    if pool.name == AGENT_POOL:
        return RoleServers(key, "server.tool_call_parser", "server.extra_args")
    return RoleServers(key, f"{key}.pool.tool_call_parser", f"{key}.pool.extra_args")
