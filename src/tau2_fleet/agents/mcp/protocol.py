"""The part of the Model Context Protocol that a seat needs, over single JSON requests, in all versions of it.

Versions up to 2025-11-25 begin with a handshake; since 2026-07-28 each request stands for itself. `door.py` brings the
bodies, `tools.py` says what is offered. Written here, and not taken from the package `mcp`, because that one takes
25 ms of CPU for the requests of one short conversation, five times what all else of it costs; the tests connect with
that package's client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson

from tau2_fleet import __version__
from tau2_fleet.llm.types import without_surrogates

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSION = "2026-07-28"
VERSIONS = (*HANDSHAKE_VERSIONS, MODERN_VERSION)

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
UNSUPPORTED_VERSION = -32022

_SERVER = {"name": "tau2-fleet", "title": "τ²-bench: the agent's seat", "version": __version__}
_CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}}
_IN_META = "io.modelcontextprotocol/serverInfo"
_LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list", "resources/read")
"""What a modern client may keep; ours is not to be kept."""


class ProtocolError(Exception):
    """A request that cannot be answered; `code` is JSON-RPC's."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Offer(Protocol):
    """What one seat offers; the methods give results of the protocol."""

    instructions: str

    def tools(self) -> list[dict[str, Any]]: ...
    async def call_tool(self, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]: ...
    def resources(self) -> list[dict[str, Any]]: ...
    async def read_resource(self, uri: str) -> list[dict[str, Any]] | None: ...
    def prompts(self) -> list[dict[str, Any]]: ...
    async def get_prompt(self, name: str) -> dict[str, Any] | None: ...


async def respond(offer: Offer, body: bytes, version: str | None) -> bytes | None:
    """The answer to one message of a client; None: it is none that is answered.

    Args:
        version: of the protocol, as the request's header has it.
    """
    request_id: Any = None
    try:
        message = _message(body)
        request_id = message.get("id")
        if "method" not in message or "id" not in message:
            return None  # a notification, or the answer to something that was never asked
        if version is not None and version not in VERSIONS:
            raise ProtocolError(
                UNSUPPORTED_VERSION,
                f"unsupported protocol version {version[:40]}",
                {"supported": [*VERSIONS], "requested": version[:40]},
            )
        result = await _result(offer, message["method"], message.get("params") or {})
        if version == MODERN_VERSION:
            result = _modern(message["method"], result)
        return _encoded({"jsonrpc": "2.0", "id": request_id, "result": result})
    except ProtocolError as error:
        about: dict[str, Any] = {"code": error.code, "message": str(error)}
        if error.data is not None:
            about["data"] = error.data
        return _encoded({"jsonrpc": "2.0", "id": request_id, "error": about})


def _message(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)  # which keeps large integers as they are
    except (ValueError, RecursionError):
        raise ProtocolError(PARSE_ERROR, "the body is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError(INVALID_REQUEST, "the body is to be one JSON-RPC message, not a batch or anything else")
    if message.get("jsonrpc") != "2.0":
        raise ProtocolError(INVALID_REQUEST, 'a JSON-RPC message says "jsonrpc": "2.0"')
    request_id = message.get("id", 0)
    if "method" in message and (isinstance(request_id, bool) or not isinstance(request_id, str | int)):
        message.pop("id")
        raise ProtocolError(INVALID_REQUEST, "the id of a request is a string or an integer")
    if not isinstance(message.get("method", ""), str) or not isinstance(message.get("params") or {}, dict):
        raise ProtocolError(INVALID_REQUEST, "the method is a string, and params are an object")
    return message


async def _result(offer: Offer, method: str, params: dict[str, Any]) -> dict[str, Any]:
    answer = _METHODS.get(method)
    if answer is None:
        raise ProtocolError(METHOD_NOT_FOUND, f"there is no method {method[:80]} here")
    return await answer(offer, params)


async def _initialize(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    version = wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
    about = {"capabilities": _CAPABILITIES, "serverInfo": _SERVER, "instructions": offer.instructions}
    return {"protocolVersion": version, **about}


async def _discover(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {
        "supportedVersions": [MODERN_VERSION],
        "capabilities": _CAPABILITIES,
        "instructions": offer.instructions,
        "ttlMs": 0,
        "cacheScope": "private",
    }


async def _nothing(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {}


async def _list_tools(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {"tools": offer.tools()}


async def _call_tool(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    name, arguments, meta = params.get("name"), params.get("arguments"), params.get("_meta")
    if not isinstance(name, str) or not name:
        raise ProtocolError(INVALID_PARAMS, "name: which tool is called?")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise ProtocolError(INVALID_PARAMS, "arguments are to be an object")
    return await offer.call_tool(name, arguments, meta if isinstance(meta, dict) else {})


async def _list_resources(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {"resources": offer.resources()}


async def _list_templates(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {"resourceTemplates": []}


async def _read_resource(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    uri = params.get("uri")
    contents = await offer.read_resource(uri) if isinstance(uri, str) else None
    if contents is None:
        known = ", ".join(entry["uri"] for entry in offer.resources())
        raise ProtocolError(INVALID_PARAMS, f"there is no such resource, only {known}")
    return {"contents": contents}


async def _list_prompts(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    return {"prompts": offer.prompts()}


async def _get_prompt(offer: Offer, params: dict[str, Any]) -> dict[str, Any]:
    name = params.get("name")
    prompt = await offer.get_prompt(name) if isinstance(name, str) else None
    if prompt is None:
        known = ", ".join(entry["name"] for entry in offer.prompts())
        raise ProtocolError(INVALID_PARAMS, f"there is no such prompt, only {known}")
    return prompt


_METHODS: dict[str, Callable[[Offer, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "initialize": _initialize,
    "server/discover": _discover,
    "ping": _nothing,
    "logging/setLevel": _nothing,
    "tools/list": _list_tools,
    "tools/call": _call_tool,
    "resources/list": _list_resources,
    "resources/templates/list": _list_templates,
    "resources/read": _read_resource,
    "prompts/list": _list_prompts,
    "prompts/get": _get_prompt,
}


def _modern(method: str, result: dict[str, Any]) -> dict[str, Any]:
    """The result as clients of the version without a handshake expect it."""
    kept = {"ttlMs": 0, "cacheScope": "private"} if method in _LISTS else {}
    return {**result, **kept, "resultType": "complete", "_meta": {_IN_META: _SERVER}}


def _encoded(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except (TypeError, ValueError):
        return json.dumps(without_surrogates(message)).encode()
