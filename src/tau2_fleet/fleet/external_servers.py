"""Servers that someone else runs: URLs in the configuration or a `model_config_local.json`; planning reads them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.probe import ProbeError, check_health, listed, served_models
from tau2_fleet.fleet.replica import Phase, Replica
from tau2_fleet.fleet.server_kind import Placement, PoolSpec
from tau2_fleet.llm.keys import basic_auth
from tau2_fleet.record.atomic import write_json
from tau2_fleet.regular import read_given

MODEL_CONFIG_FILE = "model_config_local.json"
_PATH_KEY = "vllm_model_config_path"


@dataclass(frozen=True, slots=True)
class ExternalServers:
    """What a model configuration file says of one model."""

    model: str
    urls: tuple[str, ...]
    keys: tuple[str | None, ...] = field(default=(), repr=False)
    """Of each server; None: that of the configuration. Empty: no server has one of its own."""


def external_replicas(pools: Sequence[PoolSpec]) -> list[Replica]:
    """The replicas of all external pools."""
    return [
        Replica(
            placement=Placement(spec, index, urlsplit(url).port or 0, ()),
            base_url=url,
            key=spec.endpoint_keys.get(url, spec.api_key),
            log=None,
            expected_model=spec.model,
            port=urlsplit(url).port,
        )
        for spec in pools
        if not spec.kind.launched
        for index, url in enumerate(spec.endpoints)
    ]


def clean_url(url: str, key: str) -> str:
    """A server's URL without `/v1` and without a slash at its end; `host:port` alone is taken as http.

    Raises:
        UserError: it is no URL; names the configuration key.
    """
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{key}: {url!r} is not a URL like http://127.0.0.1:1900")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def read_model_config(path: Path, model: str | None, name: str = "server.model_config") -> ExternalServers:
    """Read a `model_config_local.json` as `tau2-fleet serve` or the old scripts write it.

    Args:
        path: the file.
        model: which of its models; needed only when it lists several.
        name: the key of the configuration that names the file, for errors.

    Raises:
        UserError: it is missing, not of the form, or does not list the model; the file of a key cannot be read.
    """
    key = f"{name}={path}"
    try:
        content = json.loads(read_given(path).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{key} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{key} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f'{key}: expected {{"<model>": [{{"ip_addr": ..., "port": ...}}]}}')
    models = {name: entries for name, entries in content.items() if name != _PATH_KEY}
    if not models:
        raise UserError(f"{key} lists no model")
    if model in models:
        chosen = model
    elif len(models) == 1:
        chosen = next(iter(models))
    else:
        raise UserError(f"{key} lists {listed(list(models))}: set agent.model to one of them")
    assert chosen is not None
    entries = _entries(models[chosen], key, chosen)
    keys = tuple(_key(entry, key, path.absolute().parent) for entry in entries)
    return ExternalServers(chosen, tuple(_url(entry, key, chosen) for entry in entries), keys if any(keys) else ())


def named_servers(
    endpoints: Sequence[str], model_config: str | None, model: str | None, prefix: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The servers that a part of the configuration names, each once, and the keys of those that have one of their own.

    Args:
        endpoints: URLs as people write them.
        model_config: a model configuration file in their place.
        model: which of the file's models.
        prefix: where these keys stand in the configuration (`server`), for errors.

    Raises:
        UserError: both are given; a URL is none; the file cannot be read.
    """
    if not model_config:
        return tuple(dict.fromkeys(clean_url(url, f"{prefix}.endpoints") for url in endpoints)), {}
    if endpoints:
        raise UserError(f"{prefix}.endpoints and {prefix}.model_config both name servers: give one of them")
    found = read_model_config(Path(model_config), model, f"{prefix}.model_config")
    keys = {url: key for url, key in zip(found.urls, found.keys, strict=False) if key is not None}
    return tuple(dict.fromkeys(found.urls)), keys


def write_model_config(path: Path, servers: Sequence[ExternalServers], key_file: Path | None = None) -> None:
    """Write the same form; `key_file` holds the key of all of them."""
    own = {} if key_file is None else {"key_file": str(key_file.absolute())}
    content: dict[str, object] = {
        entry.model: [
            {"ip_addr": urlsplit(url).hostname or "", "port": str(urlsplit(url).port or 80), **own}
            for url in entry.urls
        ]
        for entry in servers
    }
    content[_PATH_KEY] = str(path.absolute())
    write_json(path, content)


def read_key(
    api_key_env: str | None, api_key_file: str | None, prefix: str, basic_auth_env: str | None = None
) -> str | None:
    """The key of external servers: from the environment variable or the file that the configuration names.

    What `basic_auth_env` holds comes as `tau2_fleet.llm.keys.authorization` takes it.

    Args:
        api_key_env: name of a variable, or None.
        api_key_file: path of a file that holds the key and nothing else, or None.
        prefix: where these keys stand in the configuration (`server`), for errors.
        basic_auth_env: name of a variable that holds `name:password`, or None.

    Raises:
        UserError: the variable is not set, or the file is missing or empty.
    """
    if api_key_env:
        value = os.environ.get(api_key_env, "").strip()
        if not value:
            raise UserError(f"{prefix}.api_key_env={api_key_env}: this variable is not set")
        return value
    if basic_auth_env:
        value = os.environ.get(basic_auth_env, "").strip()
        if ":" not in value:
            raise UserError(f"{prefix}.basic_auth_env={basic_auth_env}: this variable holds no name:password")
        return basic_auth(value)
    return _key_of_file(api_key_file, f"{prefix}.api_key_file={api_key_file}") if api_key_file else None


def _key_of_file(path: str | Path, name: str) -> str:
    """The key that a file holds; `name` is who names the file, for errors.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        value = read_given(Path(os.path.expanduser(path))).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read: {error}") from None
    if not value or len(value.split()) != 1:
        raise UserError(f"{name} must hold one key and nothing else")
    return value


def _key(entry: dict[str, object], key: str, folder: Path) -> str | None:
    """The key of one server: what its `key_file` holds; a path that is not absolute begins beside the file."""
    file = entry.get("key_file")
    if file is None:
        return None
    if not isinstance(file, str) or not file:
        raise UserError(f"{key}: key_file must be the path of a file, not {file!r}")
    return _key_of_file(folder / os.path.expanduser(file), f"{key}: key_file {file}")


def _entries(value: object, key: str, model: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise UserError(f'{key}: {model} must have a list of {{"ip_addr": ..., "port": ...}}')
    return value


def _url(entry: dict[str, object], key: str, model: str) -> str:
    host, port = entry.get("ip_addr"), entry.get("port")
    if not isinstance(host, str) or not host.strip():
        raise UserError(f"{key}: a server of {model} has no ip_addr")
    number = int(str(port)) if re.fullmatch("[0-9]{1,5}", str(port)) else 0
    if not 1 <= number <= 65535:
        raise UserError(f"{key}: a server of {model} has port {port!r}")
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return clean_url(f"http://{bracketed}:{number}", key)


async def problem_of(http: aiohttp.ClientSession, replica: Replica, timeout_s: float) -> tuple[str, bool]:
    """Look at a server: what is wrong with it (empty: nothing), and whether waiting will not help."""
    try:
        if replica.phase is Phase.ready:
            await check_health(http, replica.base_url, timeout_s)
            return "", False
        models = await served_models(http, replica.base_url, replica.key, timeout_s)
    except ProbeError as error:
        if replica.phase is Phase.ready:
            # Not every OpenAI-compatible server has /health: any answer below 500 is a living one.
            return (str(error), False) if error.status is None or error.status >= 500 else ("", False)
        if error.status in (401, 403):
            return (
                f"{replica.base_url} refuses the key: set server.api_key_env or server.api_key_file, or its key_file",
                True,
            )
        return str(error), error.status is not None and error.status < 500
    problem = replica.adopt(models)
    return problem, bool(problem)
