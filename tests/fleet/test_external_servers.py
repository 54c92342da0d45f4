"""Servers that others run: URLs, model configuration files, keys; and the pools of a run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import (
    ExternalServers,
    clean_url,
    read_key,
    read_model_config,
    write_model_config,
)
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.pool_check import check_pool
from tau2_fleet.fleet.pools import LocalModel, local_models, pool_specs
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.llm.endpoints import Endpoint

OLD_FILE = """{
    "/ckpt/model": [{"ip_addr": "127.0.0.1", "port": "1900"}, {"ip_addr": "10.0.0.7", "port": 1901}],
    "vllm_model_config_path": "/old/run/model_config_local.json"
}"""


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("http://127.0.0.1:1900", "http://127.0.0.1:1900"),
        ("http://127.0.0.1:1900/v1/", "http://127.0.0.1:1900"),
        ("10.0.0.7:1900", "http://10.0.0.7:1900"),
        ("https://models.example/v1", "https://models.example"),
        ("https://models.example/team/v1", "https://models.example/team"),
        ("http://[::1]:1900/", "http://[::1]:1900"),
    ],
)
def test_urls_are_taken_as_people_write_them(given: str, clean: str) -> None:
    assert clean_url(given, "server.endpoints") == clean


@pytest.mark.parametrize("given", ["", "http://", "ftp://host:1", "http://host:99999", "http://host:port"])
def test_what_is_no_url_is_named(given: str) -> None:
    with pytest.raises(UserError, match=r"server\.endpoints: .* is not a URL like http://127\.0\.0\.1:1900"):
        clean_url(given, "server.endpoints")


def test_an_old_model_config_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model_config_local.json"
    file.write_text(OLD_FILE)
    servers = ExternalServers("/ckpt/model", ("http://127.0.0.1:1900", "http://10.0.0.7:1901"))
    assert read_model_config(file, None) == servers
    assert read_model_config(file, "/ckpt/model") == servers


def test_a_model_config_file_that_was_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "model_config_local.json"
    agent = ExternalServers("/ckpt/model", ("http://127.0.0.1:1900", "http://127.0.0.1:1901"))
    user = ExternalServers("org/user", ("http://[::1]:1902",))
    write_model_config(file, [agent, user])
    assert read_model_config(file, "/ckpt/model") == agent
    assert read_model_config(file, "org/user") == user
    assert json.loads(file.read_text())["/ckpt/model"][1] == {"ip_addr": "127.0.0.1", "port": "1901"}
    with pytest.raises(UserError, match=r"lists /ckpt/model, org/user: set agent\.model to one of them"):
        read_model_config(file, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "expected"),
        ("{}", "lists no model"),
        ('{"m": []}', "m must have a list of"),
        ('{"m": {"ip_addr": "a"}}', "m must have a list of"),
        ('{"m": [{"port": "1"}]}', "a server of m has no ip_addr"),
        ('{"m": [{"ip_addr": "a", "port": "x"}]}', "a server of m has port 'x'"),
        ('{"m": [{"ip_addr": "a", "port": 70000}]}', "a server of m has port 70000"),
    ],
)
def test_a_bad_model_config_file_is_one_clear_error(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=rf"server\.model_config={file}.*{said}"):
        read_model_config(file, None)


def test_keys_come_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("secret-1\n")
    monkeypatch.setenv("SERVER_KEY", " secret-2 ")
    assert read_key(None, str(file), "server") == "secret-1"
    assert read_key("SERVER_KEY", None, "server") == "secret-2"
    assert read_key(None, None, "server") is None
    with pytest.raises(UserError, match=r"server\.api_key_env=NO_SUCH: this variable is not set"):
        read_key("NO_SUCH", None, "server")
    with pytest.raises(UserError, match=r"server\.api_key_file=.*nothing cannot be read"):
        read_key(None, str(tmp_path / "nothing"), "server")
    file.write_text("two words")
    with pytest.raises(UserError, match="must hold one key and nothing else"):
        read_key(None, str(file), "server")


@dataclass
class Wish:
    """What the models' settings say of a pool."""

    name: str
    model: str | None = None
    num: int = 1
    tensor_parallel_size: int = 1
    tool_call_parser: str | None = None
    extra_args: str = ""
    endpoints: list[str] = field(default_factory=list)
    model_config: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    basic_auth_env: str | None = None


def test_each_local_model_has_a_pool_and_the_same_name_is_the_same_pool() -> None:
    others = [
        LocalModel("user_llm", False, "/user", Wish("user", num=2, tool_call_parser="mistral")),
        LocalModel("experts.expert_1.llm", False, "/big", Wish("experts", endpoints=["other:1900/v1"])),
        LocalModel("judge", False, "/user", Wish("user"), needs_tools=False),
        LocalModel("experts.expert_2.llm", True, "simulated", Wish("simulated")),
    ]
    agent, user, experts, simulated = pool_specs(ServerSettings(min_ready=2), "/agent", False, others)
    assert (agent.kind, agent.model, agent.num, agent.min_ready, agent.may_shrink) == (
        Vllm(), "/agent", 4, 2, True,
    )  # fmt: skip
    assert (user.name, user.num, user.tool_call_parser, user.may_shrink) == ("user", 2, "mistral", False)
    assert (experts.kind, experts.endpoints) == (External(), ("http://other:1900",))
    assert (simulated.kind, simulated.name) == (Simulated(), "simulated")


def test_a_user_can_share_the_agents_servers() -> None:
    [agent] = pool_specs(ServerSettings(), "/agent", False, [LocalModel("user_llm", False, None, Wish("agent"))])
    assert agent.model == "/agent"
    external = ServerSettings(kind="external", endpoints=["http://h:1"])
    [shared] = pool_specs(external, None, False, [LocalModel("user_llm", False, None, Wish("agent"))])
    assert shared.kind == External()
    simulated = ServerSettings(kind="simulated")
    [played] = pool_specs(simulated, None, False, [LocalModel("user_llm", True, "simulated", Wish("agent"))])
    assert played.kind == Simulated()


@pytest.mark.parametrize(
    ("server", "model", "others", "said"),
    [
        (ServerSettings(), None, [], "agent.model is not set"),
        (ServerSettings(kind="external"), None, [], "server=external needs server.endpoints"),
        (
            ServerSettings(kind="external", endpoints=["http://h:1"], model_config="f"),
            None,
            [],
            "both name servers",
        ),
        (
            ServerSettings(),
            "/agent",
            [LocalModel("user_llm", False, "/other", Wish("agent"))],
            "user_llm.pool.name=agent: this pool serves /agent",
        ),
        (
            ServerSettings(),
            "/agent",
            [LocalModel("user_llm", True, "simulated", Wish("agent"))],
            "give it a name of its own",
        ),
        (ServerSettings(), "/agent", [LocalModel("judge", False, None, Wish("judge"))], "judge.model is not set"),
    ],
)
def test_pools_that_cannot_be_name_their_keys(
    server: ServerSettings, model: str | None, others: list[LocalModel], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        pool_specs(server, model, False, others)


async def _ask(spec: PoolSpec, answers: dict[str, object]) -> tuple[list[dict[str, object]], str]:
    """What a pool's server is asked before a run when it answers with this message, and what stops the run."""
    asked: list[dict[str, object]] = []

    async def complete(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"choices": [{"message": answers, "finish_reason": "stop"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}"
        try:
            await check_pool(http, replace(spec, endpoints=(url,)), Endpoint("elsewhere", url, "m"))
        except UserError as error:
            return asked, str(error).replace(url, "URL")
    return asked, ""


def test_the_preflight_carries_a_seed_only_where_requests_do_and_names_the_server_of_a_wrong_parser() -> None:
    answer: dict[str, object] = {"role": "assistant", "content": "<tool_call>{}</tool_call>"}
    for sends_seed in (True, False):
        server = ServerSettings(kind="external", endpoints=["other:1900"])
        others = [LocalModel("judge", False, None, Wish("agent"), sends_seed=False)]
        [agent] = pool_specs(server, None, False, [], agent_sends_seed=sends_seed)
        [shared] = pool_specs(server, None, False, others, agent_sends_seed=sends_seed)
        assert (agent.sends_seed, shared.sends_seed) == (sends_seed, False)
        asked, said = asyncio.run(_ask(agent, answer))
        assert ["seed" in body for body in asked] == [sends_seed]
        assert "--tool-call-parser (with --enable-auto-tool-choice) where URL is started" in said


def test_a_pool_is_asked_for_a_tool_call_only_where_its_model_has_tools(caplog: pytest.LogCaptureFixture) -> None:
    """The customer of mock, retail and airline has none; plain text from its model is what is wanted."""
    answer: dict[str, object] = {"role": "assistant", "content": "Paris is sunny."}
    wish = Wish("user", endpoints=["other:1901"])
    roles = {"user": _Model("vllm", "m", wish)}
    for domains, has_tools in ((["mock", "retail", "airline"], False), (["mock", "telecom"], True)):
        found = [load_domain(name, None).has_user_tools for name in domains]
        [other] = local_models(roles, user_has_tools=any(found))
        server = ServerSettings(kind="external", endpoints=["other:1900"])
        _, user = pool_specs(server, None, False, [other])
        caplog.clear()
        (asked, _), said = asyncio.run(_ask(user, answer))
        assert (said, "tools" in asked, "in plain text" in caplog.text) == ("", has_tools, has_tools)


@dataclass
class _Model:
    """What the models' settings say of one that a pool serves."""

    provider: str
    model: str | None
    pool: Wish
    sends_seed: bool = True
    thinking_history: str = "none"
