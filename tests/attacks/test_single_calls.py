"""Whatever a server sends back to one request: a reply or a clear failure, in bounded time and memory, without keys."""

from __future__ import annotations

import asyncio
import resource
import secrets
import time
from collections.abc import Iterator

import pytest

from tau2_fleet.fleet.probe import ProbeError, check_health, http_session, metrics_text, served_models
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, Reply
from tau2_fleet.telemetry import secrets as known
from tests.attacks.hostile import ATTACKS, hostile
from tests.llm.dialects import OPENAI
from tests.llm.serving import Server

KEY = f"sk-{secrets.token_urlsafe(30)}"
_MEMORY_MB = 400
_CALL_S = 1.0
_PROBE_S = 1.0

every_attack = pytest.mark.parametrize("attack", ATTACKS)


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Which is known to be one in this test alone."""
    monkeypatch.setenv("ATTACKED_API_KEY", KEY)
    with monkeypatch.context() as patch:
        for redactor in (known.redactor, known.record_redactor):
            for name in ("_known", "_needles"):
                patch.setattr(redactor, name, getattr(redactor, name))
        yield


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@every_attack
def test_a_chat_call_ends_as_a_reply_or_a_clear_failure(attack: str) -> None:
    async def ask(url: str) -> Reply | ModelError:
        async with HttpPool() as http:
            model = OPENAI.model_of(
                Server([], url=url),
                http,
                api_key_env="ATTACKED_API_KEY",
                call_timeout_s=_CALL_S,
                retry=RetryPolicy(attempts=2, first_s=0.01, longest_s=0.01),
            )
            request = ChatRequest((ChatMessage("user", "Hello"),), session="run/mock/1/0/user")
            try:
                return await model.complete(request)
            except ModelError as error:
                return error
            finally:
                await model.close()

    before, began = peak_mb(), time.monotonic()
    with hostile(attack) as server:
        result = asyncio.run(asyncio.wait_for(ask(server.url), 20))
    assert server.used == {attack}
    assert time.monotonic() - began < 10
    assert peak_mb() - before < _MEMORY_MB
    if isinstance(result, ModelError):
        assert len(str(result)) < 1000
        assert KEY not in known.redact(str(result))
        assert "Traceback" not in str(result)


@every_attack
def test_a_probe_ends_as_an_answer_or_a_clear_failure(attack: str) -> None:
    async def ask(url: str) -> list[str]:
        told = []
        async with http_session() as http:
            for probe in (check_health(http, url, _PROBE_S), served_models(http, url, KEY, _PROBE_S),
                          metrics_text(http, url, KEY, _PROBE_S)):  # fmt: skip
                try:
                    await probe
                except ProbeError as error:
                    told.append(str(error))
        return told

    before, began = peak_mb(), time.monotonic()
    with hostile(attack) as server:
        told = asyncio.run(asyncio.wait_for(ask(server.url), 20))
    assert server.used == {attack}
    assert time.monotonic() - began < 10
    assert peak_mb() - before < _MEMORY_MB
    known.protect(KEY)
    for text in told:
        assert len(text) < 1000
        assert text.isprintable()
        assert KEY not in known.redact(text)
