"""`server=external`: servers that someone else runs, at URLs of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import named_servers, read_key
from tau2_fleet.fleet.server_kind import PoolSpec, UnlaunchedKind
from tau2_fleet.fleet.settings import ServerSettings


@dataclass(frozen=True)
class External(UnlaunchedKind):
    """Nothing is started here and nothing ended."""

    name = "external"

    def problems(self, server: ServerSettings, model: str | None) -> Iterator[str]:
        if not server.endpoints and server.model_config is None:
            yield "server=external: where? Give 'server.endpoints=[http://HOST:PORT]' or server.model_config=FILE"
        elif server.endpoints and server.model_config is not None:
            yield "server.endpoints and server.model_config: give one of the two"

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        urls, keys = named_servers(server.endpoints, server.model_config, model, "server")
        if not urls:
            raise UserError("server=external needs server.endpoints=[http://host:port] or server.model_config=FILE")
        return PoolSpec(
            name,
            self,
            model,
            num=len(urls),
            tool_call_parser=server.tool_call_parser,
            endpoints=urls,
            endpoint_keys=keys,
            api_key=read_key(server.api_key_env, server.api_key_file, "server", server.basic_auth_env),
            min_ready=min(server.min_ready, len(urls)),
        )
