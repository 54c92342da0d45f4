"""Two turns with each pool before the run: are calls parsed, and does the server take what follows them?"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.probe import ProbeError, key_header, read_text
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.llm.completion import decode_json
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.failures import Failure
from tau2_fleet.llm.markup import find_markup
from tau2_fleet.llm.thinking import cut
from tau2_fleet.llm.thinking_history import wants_thinking
from tau2_fleet.llm.thought import thought_in
from tau2_fleet.llm.too_long import too_long

log = logging.getLogger(__name__)

_TIMEOUT_S = 300.0
_MOST_SENT = 1 << 20
"""Bytes of a history that is sent back."""
_NO_ANSWER = (aiohttp.ClientError, ProbeError, TimeoutError, OSError)
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
    general: bool = False
    """The error is one for models without tools, too."""


async def check_pool(http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint) -> None:
    """Ask twice, for a tool call where the pool's models have tools; a warning is logged.

    Raises:
        UserError: the pool's calls would arrive as text, or the server refuses requests with tools or any second turn.
    """
    finding = await _ask(http, spec, endpoint)
    if finding.error and (spec.needs_tools or finding.general):
        raise UserError(finding.error)
    if finding.error or finding.warning:
        log.warning("%s", finding.error or finding.warning)


async def _ask(http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint) -> PoolFinding:
    try:
        status, text = await _post(http, spec, endpoint, _MESSAGES)
    except _NO_ANSWER as error:
        told = f"pool {spec.name}: the preflight request to {endpoint.base_url} got no answer ({error!r})"
        return PoolFinding(warning=told)
    if status != 200:
        return PoolFinding(error=f"pool {spec.name}: {_refusal(spec, status, text)}")
    try:
        message = decode_json(text.encode())["choices"][0]["message"]
        calls, content = message.get("tool_calls") or [], message.get("content") or ""
        if not content and not calls:  # a reasoning parser can take the call for thinking
            content = str(message.get("reasoning_content") or message.get("reasoning") or "")
        further = [*_MESSAGES, *_second_turn(message, kept=spec.thinking_history != "none")]
        body = orjson.dumps(further)
    except (Failure, ValueError, LookupError, TypeError, AttributeError):
        told = f"{endpoint.base_url} answered something that is no chat completion: {text[:200]}"
        return PoolFinding(error=f"pool {spec.name}: {told}")
    finding = PoolFinding()
    if spec.needs_tools:
        finding = _judge(spec, bool(calls), content if isinstance(content, str) else "")
    if finding.error or len(body) > _MOST_SENT:
        return finding
    return await _ask_again(http, spec, endpoint, further, finding)


async def _ask_again(
    http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint, history: list[Any], first: PoolFinding
) -> PoolFinding:
    """The second turn of a conversation, which some servers refuse; otherwise what the first one showed."""
    try:
        status, text = await _post(http, spec, endpoint, history)
    except _NO_ANSWER:
        return first
    if not 400 <= status < 500 or status in (408, 409, 429) or too_long(text):
        return first
    told = f"pool {spec.name}: the server refuses the second turn of a conversation ({status}): {text[:300]}"
    if wants_thinking(text) and spec.thinking_history == "none":
        key = spec.model_key.removesuffix("model") + "thinking_history"
        told += f"; it wants back what its model thought: set {key}=turn (or all)"
    return PoolFinding(error=told, general=True)


def _second_turn(message: dict[str, Any], *, kept: bool) -> list[dict[str, Any]]:
    """The server's reply as a history carries it, and what comes next; `kept`: with its thinking."""
    content, calls = message.get("content"), message.get("tool_calls") or []
    said = cut(content)[0] if isinstance(content, str) and not kept else content
    turn: dict[str, Any] = {"role": "assistant", "content": said if isinstance(said, str) else ""}
    if calls:
        turn["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{number}",
                "type": "function",
                "function": {"name": function["name"], "arguments": _arguments(function)},
            }
            for number, call in enumerate(calls[:8])
            for function in [call.get("function") or call]
        ]
    thought = thought_in(message) if kept else None
    if thought is not None:
        thought.put_into(turn)
    if not calls:
        return [turn, {"role": "user", "content": "Thank you. And in Rome?"}]
    return [
        turn,
        *({"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"} for call in turn["tool_calls"]),
    ]


def _arguments(function: dict[str, Any]) -> str:
    """Arguments that every server takes back."""
    try:
        arguments = function.get("arguments")
        return arguments if isinstance(arguments, str) and isinstance(orjson.loads(arguments), dict) else "{}"
    except ValueError:
        return "{}"


async def _post(
    http: aiohttp.ClientSession, spec: PoolSpec, endpoint: Endpoint, messages: list[Any]
) -> tuple[int, str]:
    """Status and text of the answer to these messages."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": 512,
        "temperature": 0,
    }
    if spec.needs_tools:
        body |= {"tools": [_TOOL], "tool_choice": "auto"}
    if spec.sends_seed:
        body["seed"] = 0
    headers = {**key_header(endpoint.api_key), "Content-Type": "application/json", "X-Session-ID": "preflight"}
    url = f"{endpoint.base_url}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with http.post(
        url, data=orjson.dumps(body), headers=headers, timeout=timeout, allow_redirects=False
    ) as response:
        return response.status, await read_text(response, url)


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
