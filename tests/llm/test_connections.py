"""Connections stay open between calls as long as the server at the other end leaves them open."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import gc
import ipaddress
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.probe import ProbeError, http_session, served_models
from tau2_fleet.fleet.vllm_command import vllm_environment
from tau2_fleet.llm import http as http_module
from tau2_fleet.llm.endpoints import OWN_IDLE_S, Endpoint
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError
from tests.llm.dialects import ALL, LITELLM, VLLM
from tests.llm.serving import OneByOne, serving

REQUEST = ChatRequest([ChatMessage("user", "Hello")], "s")


@pytest.mark.parametrize("own", [True, False], ids=["server of the fleet", "external server"])
def test_calls_that_are_apart_share_a_connection_of_the_fleet(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "_KEEP_ALIVE_S", 0.05)

    async def run() -> list[bool]:
        async with serving(VLLM.reply("Here")) as server, HttpPool() as http:
            router = OneByOne(Endpoint("agent/0", server.url, "tiny", keeps_alive=own))
            model = VLLM.model_of(server, http, router=router)
            opened = []
            for _ in range(2):
                opened.append((await model.complete(REQUEST)).stats.connect_ms > 0)
                await asyncio.sleep(0.3)
            return opened

    assert asyncio.run(run()) == [True, not own]


def test_servers_of_our_own_keep_connections_longer_than_we_do() -> None:
    assert Vllm.keeps_alive
    assert Simulated.keeps_alive  # these never close one
    assert vllm_environment([], False, frozenset())["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == str(OWN_IDLE_S)
    assert http_module._OWN_KEEP_ALIVE_S < OWN_IDLE_S


@pytest.mark.parametrize("name", ["openai/tiny", "hosted_vllm/tiny"])
def test_connections_that_litellm_keeps_end_with_the_run_s_own_and_the_next_run_makes_new_ones(name: str) -> None:
    async def run() -> None:
        async with serving(LITELLM.reply("Here")) as server, HttpPool() as http:
            model = dataclasses.replace(LITELLM, model=name).model_of(server, http)
            assert (await model.complete(REQUEST)).text == "Here"

    for _ in range(2):
        asyncio.run(run())
        assert not [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientSession) and not one.closed]


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """For a server whose certificate nobody here knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(encoding, form, plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_a_certificate_that_is_not_trusted_is_said_with_the_way_out(self_signed: ssl.SSLContext) -> None:
    async def run() -> list[str]:
        told = []
        async with (
            serving(VLLM.reply("Here"), tls=self_signed) as server,
            HttpPool() as http,
            http_session() as probing,
        ):
            for dialect in ALL:
                model = dialect.model_of(server, http, retry=RetryPolicy(attempts=1))
                with pytest.raises(ModelError) as refused:
                    await model.complete(REQUEST)
                await model.close()
                told.append(str(refused.value))
            with pytest.raises(ProbeError) as found:
                await served_models(probing, server.url, None, 10)
            return [*told, str(found.value)]

    for text in asyncio.run(run()):
        assert "its certificate is not trusted (self-signed certificate)" in text
        assert text.endswith("in the variable SSL_CERT_FILE")
