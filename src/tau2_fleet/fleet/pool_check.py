"""One request with a tool per pool before the run: does the server's parser turn the model's calls into calls?"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.plan import PoolSpec
from tau2_fleet.fleet.probe import ProbeError, key_header, read_text
from tau2_fleet.llm.markup import find_markup
from tau2_fleet.llm.types import Endpoint

log = logging.getLogger(__name__)

_TIMEOUT_S = 300.0
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}
_OFFERED = ("get_weather",)
_MESSAGES = [
    {"role": "system", "content": "Use the tools whenever they can answer."},
    {"role": "user", "content": "What is the weather in Paris? Look it up with the tool."},
]


@dataclass(frozen=True, slots=True)
class PoolFinding:
    """What a pool answered: `error` stops the run, `warning` does not."""

    error: str | None = None
    warning: str | None = None


async def preflight(http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint) -> None:
    """Ask once, for a tool call where the pool's models have tools; a warning is logged.

    Raises:
        UserError: the pool's calls would arrive as text, or the server refuses requests with tools.
    """
    finding = await _ask(http, spec, endpoint)
    if finding.error and spec.needs_tools:
        raise UserError(finding.error)
    if finding.error or finding.warning:
        log.warning("%s", finding.error or finding.warning)


async def _ask(http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint) -> PoolFinding:
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": _MESSAGES,
        "max_tokens": 512,
        "temperature": 0,
    }
    if spec.needs_tools:
        body |= {"tools": [_TOOL], "tool_choice": "auto"}
    if spec.sends_seed:
        body["seed"] = 0
    headers = {**key_header(endpoint.api_key), "Content-Type": "application/json", "X-Session-ID": "preflight"}
    url = f"{endpoint.base_url}/v1/chat/completions"
    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with http.post(
            url, data=orjson.dumps(body), headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            text = await read_text(response, url)
            status = response.status
    except (aiohttp.ClientError, ProbeError, TimeoutError, OSError) as error:
        return PoolFinding(warning=f"pool {spec.name}: the preflight request to {url} got no answer ({error!r})")
    if status != 200:
        return PoolFinding(error=f"pool {spec.name}: {_refusal(spec, status, text)}")
    try:
        message = orjson.loads(text)["choices"][0]["message"]
        calls, content = message.get("tool_calls") or [], message.get("content") or ""
        if not content and not calls:  # a reasoning parser can take the call for thinking
            content = str(message.get("reasoning_content") or message.get("reasoning") or "")
    except (ValueError, LookupError, TypeError, AttributeError):
        return PoolFinding(error=f"pool {spec.name}: {url} answered something that is no chat completion: {text[:200]}")
    return _judge(spec, bool(calls), content) if spec.needs_tools else PoolFinding()


def _judge(spec: PoolSpec, called: bool, content: str) -> PoolFinding:
    markup = find_markup(content, _OFFERED)
    if markup is not None:
        looks = f", as {markup.form} models write it" if markup.form else ""
        return PoolFinding(
            error=f"pool {spec.name}: a tool call came back as text ({markup.piece} ...{looks}): the parser does not "
            f"fit the model. Set {_parser_key(spec)}"
        )
    if called:
        return PoolFinding()
    return PoolFinding(
        warning=f"pool {spec.name}: the model answered a request that asks for a tool call in plain text; "
        f"if it never calls tools, {_parser_key(spec)} may be wrong"
    )


def _refusal(spec: PoolSpec, status: int, text: str) -> str:
    if status == 401:
        return "the server refuses the key: set api_key_env or api_key_file"
    if "tool" in text and ("parser" in text or "auto" in text):
        return f"the server takes no requests with tools: set {_parser_key(spec)}"
    return f"the server refused a request with tools ({status}): {text[:300]}"


def _parser_key(spec: PoolSpec) -> str:
    if not spec.kind.launched:
        where = ", ".join(spec.endpoints[:3]) or "that server"
        return f"--tool-call-parser (with --enable-auto-tool-choice) where {where} is started"
    key = "server.tool_call_parser" if spec.num_key == "server.num" else "the pool's tool_call_parser"
    return f"{key} (now {spec.tool_call_parser or 'null'}; vLLM's --tool-call-parser) to the model's own"
