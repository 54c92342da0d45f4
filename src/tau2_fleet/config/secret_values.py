"""Secrets and the configuration, which is written into run directories: none may stand in it, all it names are known.

`validation` looks at whole configurations, `jobs` also at the arguments, before Hydra has written anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tau2_fleet.config.flags import apart
from tau2_fleet.config.models import model_settings
from tau2_fleet.config.schema import Config
from tau2_fleet.config.sources import added_folders, search_path
from tau2_fleet.errors import UserError
from tau2_fleet.llm.keys import credential_problem, file_content, key_name, protect_credential
from tau2_fleet.telemetry.secrets import redact

_NAMED = re.compile(
    r"(^|[_.-])(api[_-]?key|token|secret|password|passwd|credentials?|cred|authorization|bearer)$", re.I
)
_SPECIAL_TOKEN = re.compile(r"(^|[_.-])(eos|bos|pad|unk|stop|sep|mask|image|audio|special|end|start)[_-]token$", re.I)
_USER_INFO = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@'\"]+@", re.I)
_IN_QUERY = re.compile(r"[?&][^=&\s#]*(?:key|token|secret|password|passwd|signature|sig|credential|auth)=[^&\s#]", re.I)
_FLAG = re.compile(r"(?:^|\s)--?(?:[a-z0-9]+[_-])*(?:api[_-]key|token|secret|password)(?:=|\s+)[^\s-]", re.I)
_HEADER = re.compile(r"\bbearer\s+(?=\S*\d)[\w+/=.~-]{12,}|\bauthorization\b['\"]?\s*[:=]\s*\S", re.I)
_WELL_KNOWN = re.compile(
    r"(?<![\w-])(?:c?sk-[\w-]{20,}|hf_\w{20,}|gsk_\w{20,}|AIza[\w-]{30,}|nvapi-[\w-]{20,}|xai-\w{20,}|gh[pousr]_\w{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{20,}|tgp_v\d_[\w-]{20,}|r8_\w{20,}|pplx-\w{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b|dapi[0-9a-f]{32}|ya29\.[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)
_SHORTEST = 8
"""Characters from which a text can be a secret."""
_FROM_ANYWHERE = 12
"""The same for a text that is known as one only because some variable has it."""


def carried_by(key: str, value: Any) -> str | None:
    """Why this value of a key must not stand in a configuration, without repeating it; None: it may."""
    if isinstance(value, Mapping):
        return next((why for name, part in value.items() if (why := carried_by(f"{key}.{name}", part))), None)
    if isinstance(value, list | tuple):
        return next((why for part in value if (why := carried_by(key, part))), None)
    if not isinstance(value, str) or not value:
        return None
    what = _what(key, value)
    return None if what is None else f"{key} {what}"


def _what(key: str, text: str) -> str | None:
    written = "and a configuration is written into the run directory"
    model = _model_of(key)
    if redact(text) != text or _of_some_variable(key, text):
        return f"holds the value of an API key, {written}: name its variable instead, with {model}.api_key_env"
    if _USER_INFO.search(text):
        return (
            f"has a name or password in a URL, {written}: take it out, put name:password into a variable, "
            f"and name that with {model}.basic_auth_env"
        )
    if _IN_QUERY.search(text):
        return f"has a key in a URL, {written}: put it into a variable and name that with {model}.api_key_env"
    last = key.rpartition(".")[2]
    is_named = ".extra_body." in key and _NAMED.search(last) and not _SPECIAL_TOKEN.search(last)
    plain = text.rpartition(" ")[2] if last.lower() == "authorization" else text
    is_secret = len(plain) >= _SHORTEST and not re.search(r"\s|^[<$]", plain)
    if (is_named and is_secret) or _HEADER.search(text) or _WELL_KNOWN.search(text):
        return f"holds a secret value, {written}: put it into a variable and name that with {model}.api_key_env"
    if key.endswith("extra_args") and _FLAG.search(text):
        return (
            f"has a key among the flags, {written}: servers of this run get a random one by themselves, "
            "HF_TOKEN and the like reach them as variables"
        )
    return None


def _of_some_variable(key: str, text: str) -> bool:
    """Whether it stands in the environment, under whatever name: then it was put there to be kept apart."""
    if not key.partition(".extra_body.")[2] and not key.endswith("extra_args"):
        return False
    words = [word for word in re.split(r"[\s=]+", text) if len(word) >= _FROM_ANYWHERE and re.search(r"\d", word)]
    return any("/" not in word and word in os.environ.values() for word in words)


def _model_of(key: str) -> str:
    """The group whose keys name a credential, for a key within it."""
    found = re.match(r"server|user_llm|judge|experts\.expert_\d\.(?:llm|fallback)", key)
    if found is None:
        return "server" if key.startswith("agent") else "user_llm"
    pool = ".pool" if key.startswith(f"{found[0]}.pool.") else ""
    return f"{found[0]}{pool}"


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Raises UserError where these arguments, or files that they choose for a sweep, carry a secret.

    Hydra writes a sweep's configuration before its first job is checked; that of a single run it writes not at all.
    """
    flags, settings = apart(arguments)
    for setting in settings:
        key, _, value = setting.partition("=")
        _refuse(carried_by(key.lstrip("+~"), value.strip("'\"[]")))
    if "-m" in flags or "--multirun" in flags:
        for key, value in _composed(settings, search_path(added_folders(arguments))).items():
            _refuse(carried_by(key, value))


def _refuse(why: str | None) -> None:
    if why is not None:
        raise UserError(why)


def _composed(settings: Sequence[str], folders: Sequence[str]) -> dict[str, Any]:
    """The configuration that a sweep starts from; empty where there is none, which Hydra will say."""
    from omegaconf import OmegaConf

    from tau2_fleet.config.compose import compose

    swept = re.compile(r"[^\['\"{]*=[^\['\"{]*,")
    single = [text for text in settings if not swept.match(text) and "hydra.searchpath" not in text]
    try:
        tree = OmegaConf.to_container(compose([*single, *folders]), resolve=False)
    except UserError:
        return {}
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def credential_problems(config: Config) -> Iterator[str]:
    """Know all secrets that a configuration names, from now on kept out of all that is written.

    A line for each that cannot be one: too short to be told from a word, or with a line break.
    """
    for where, name in _variables(config):
        if not _is_name(name):
            yield f"{where.removesuffix('=')}: wants the name of a variable that holds the key, not the key itself"
            continue
        value = os.environ.get(name, "").strip()
        if problem := credential_problem(value):
            yield f"{where}{name}: {problem}"
        else:
            protect_credential(value)
    for where, path in _files(config):
        content = file_content(path) or ""
        if problem := credential_problem(content):
            yield f"{where}{path}: {problem}"
        else:
            protect_credential(content)


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", text) is not None


def _variables(config: Config) -> Iterator[tuple[str, str]]:
    """The variables that the configuration names, or means: where, and the variable."""
    seen = set()
    for key, settings in _holders(config):
        if settings.api_key_env and settings.basic_auth_env:
            raise UserError(f"{key}.api_key_env and {key}.basic_auth_env: give one of the two")
        for last in ("api_key_env", "basic_auth_env"):
            name = getattr(settings, last)
            if name and name not in seen:
                seen.add(name)
                yield f"{key}.{last}=", name
    for model in model_settings(config).values():
        name = key_name(model)
        if name and name not in seen:
            seen.add(name)
            yield "", name


def _files(config: Config) -> Iterator[tuple[str, str]]:
    for key, settings in _holders(config):
        path = getattr(settings, "api_key_file", None)
        if path:
            yield f"{key}.api_key_file=", path


def _holders(config: Config) -> Iterator[tuple[str, Any]]:
    """The groups whose keys name credentials."""
    yield "server", config.server
    for key, model in model_settings(config).items():
        yield key, model
        if model.pool is not None:
            yield f"{key}.pool", model.pool
