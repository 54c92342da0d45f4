"""Whatever a server sends back to one request: a reply or a clear failure, in bounded time and memory, without keys."""

from __future__ import annotations

import asyncio
import resource
import secrets
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tau2_fleet.fleet.probe import ProbeError, check_health, http_session, metrics_text, served_models
from tau2_fleet.llm.completion import decode_completion
from tau2_fleet.llm.examine import examine
from tau2_fleet.llm.failures import Failure
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, Reply
from tau2_fleet.telemetry import secrets as known
from tests.attacks.hostile import ATTACKS, CALLS, completion, hostile
from tests.llm.dialects import OPENAI
from tests.llm.serving import Server
from tests.waiting import CEILING_S

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
        result = asyncio.run(asyncio.wait_for(ask(server.url), CEILING_S))
    assert server.used == {attack}
    assert time.monotonic() - began < 60
    assert peak_mb() - before < _MEMORY_MB
    if isinstance(result, ModelError):
        assert len(str(result)) < 1000
        assert KEY.lower() not in known.redact(str(result)).lower()
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
        told = asyncio.run(asyncio.wait_for(ask(server.url), CEILING_S))
    assert server.used == {attack}
    assert time.monotonic() - began < 60
    assert peak_mb() - before < _MEMORY_MB
    known.protect(KEY)
    for text in told:
        assert len(text) < 1000
        assert text.isprintable()
        assert KEY.lower() not in known.redact(text).lower()


_WRONG: list[Any] = [None, True, False, 0, 7, -1, 1.5, [], [7], [None], [[]], [{}], {}, {"a": 1}, {"0": []}, 1e300]


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for step, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, step)
        yield from _places(part, (*path, step))


@pytest.mark.parametrize("message", [{"content": "Yes"}, {"content": None, "tool_calls": CALLS}], ids=["text", "call"])
def test_a_value_of_the_wrong_kind_never_becomes_what_the_model_said(message: dict[str, Any]) -> None:
    """In every place of an answer: a failure, nothing said, or what the answer says without it."""
    sound = completion(**message)
    said = examine(decode_completion(orjson.dumps(sound)), None)
    kept = refused = 0
    for path in _places(sound):
        for wrong in _WRONG:
            spoilt = orjson.loads(orjson.dumps(sound))
            holder = spoilt
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = wrong
            try:
                found = examine(decode_completion(orjson.dumps(spoilt)), None)
            except Failure:
                refused += 1
                continue
            kept += 1
            assert found.text in (said.text, "", None), (path, wrong)
            calls = [(call.name, orjson.loads(call.arguments)) for call in found.tool_calls]
            meant = wrong if path[-1] == "arguments" and isinstance(wrong, dict) else {}
            assert calls in ([], [("f", meant)]), (path, wrong)
    assert refused > kept / 3
