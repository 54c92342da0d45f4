"""Composes a configuration outside a run (for tools and references) and says in a line what is wrong with one.

Hydra is imported where it is used: `--help` imports this room, and answers without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from tau2_fleet.config import table
from tau2_fleet.config.flags import apart
from tau2_fleet.config.lifetimes import gone_choice
from tau2_fleet.config.names import did_you_mean, nearest, nearest_keys, unknown_key
from tau2_fleet.config.quoting import shell_word, typed_setting
from tau2_fleet.config.schema import register
from tau2_fleet.config.sources import Sources, as_overrides, sources
from tau2_fleet.errors import UserError
from tau2_fleet.paths import CONF_DIR

if TYPE_CHECKING:
    from omegaconf import DictConfig

NO_TASKS = "Other domains of the original scripts (bank, movie, ...) have no tasks."


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The composed configuration, not yet validated; also inside a running Hydra job.

    Args:
        overrides: the arguments; of flags only those that add folders of configuration files.
        with_hydra: Hydra's own part too, as `hydra`.

    Raises:
        UserError: it cannot be composed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    try:
        inside_a_job = GlobalHydra.instance().is_initialized()
        if not inside_a_job:
            register(overrides)
        with nullcontext() if inside_a_job else initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return hydra_compose("config", as_overrides(overrides), return_hydra_config=with_hydra)
    except Exception as error:
        raise UserError(explain(error, overrides)) from error


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One or two lines that say what is wrong with a configuration, naming the nearest valid names.

    Whatever Hydra raises is about the configuration: its own exceptions, OmegaConf's, and those of the Python beneath
    them where it does not check. They carry no more than their text, so it is their texts that are read here;
    `overrides` are the arguments, for those that do not say which of them they mean.
    """
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, UserError):
        return str(error)
    there = sources(overrides)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error.missing_cfg_file, there)
    text, cause = str(error), error.__cause__
    if not isinstance(error, HydraException | OmegaConfBaseException | YAMLError | OSError):
        return _first_unparsed(apart(overrides)[1]) or _null_where_none_can_be(text, overrides, there)
    if file := re.match(r"In '(.*)': \w+ raised while composing config:\n", text):
        where, detail = f"conf/{file[1]}.yaml: ", text[file.end() :]
    else:
        where, detail = "", str(cause) if isinstance(cause, OmegaConfBaseException) else text
    if found := re.search(r"^ +full_key: (.+)$", detail, re.M):
        return where + _wrong_key(detail.splitlines()[0], re.sub(r"\[\d+\]", "", found[1]), text, there)
    if isinstance(error, OSError):
        where = "what Hydra writes into the directory of the run or sweep" if error.filename is None else error.filename
        return f"{where}: {error.strerror or error}"
    if isinstance(error, YAMLError):
        return " ".join(text.split())
    if match := re.match(r"In '(.*)': Could not override '(.*)'\. No match in the defaults list", text):
        return f"conf/{match[1]}.yaml: there is no group {match[2]}.{did_you_mean(nearest(match[2], there.groups()))}"
    if match := re.match(r"Ambiguous value for argument '(.*?)'\n1\. ", text, re.S):
        return _several_values(*match[1].partition("=")[::2])
    if (wrong := _first_unparsed(apart(overrides)[1])) is not None:
        return wrong
    if match := re.match(r"Could not override '(.*?)'", text):
        return _unknown_key(match[1], there)
    lines = [line.strip() for line in text.splitlines() if line.strip() and "https://hydra.cc" not in line]
    return ": ".join(lines[:2]) or type(error).__name__


def _unknown_choice(config: str, sources: Sources) -> str:
    group, _, choice = config.rpartition("/")
    if gone := gone_choice(group, choice):
        return gone
    if (odd := sources.unreadable(group, choice)) is not None:
        return f"{odd}: a file of a configuration is meant, and this is none that can be read"
    there = sources.choices(group)
    if group in ("hydra/launcher", "hydra/sweeper"):
        return (
            f"{group}={choice}: this environment has no such part of Hydra. `make install-launchers` makes one, "
            ".venv-launchers, with SLURM, Ray, joblib and optuna."
        )
    if not there:
        return f"{config}: there is no such file in conf/.{did_you_mean(nearest_keys(group or config, sources))}"
    line = f"{group}={choice}: there is no such choice.{did_you_mean(nearest(choice, there))}"
    more = {"user_llm": " Any model: user_llm.model=NAME.", "domain": f" {NO_TASKS}"}.get(group, "")
    if choice.isidentifier() and not nearest(choice, there):
        more += f" One of your own is a file DIR/{group}/{choice}.yaml, found with --config-dir DIR."
    return f"{line}\nChoices of {group}: {', '.join(there)}.{more}"


def _wrong_key(reason: str, key: str, text: str, sources: Sources) -> str:
    """OmegaConf's reason for refusing a key, in the words of this configuration; `text` is Hydra's around it."""
    if "not in struct" in reason or re.match(r"Key '.*' not in ", reason):
        named = re.match(r"Could not override '(.*?)'", text)
        return _unknown_key(named[1] if named and not key.startswith(f"{named[1]}.") else key, sources)
    if "interpolat" in reason.lower():
        missing = re.match(r"Interpolation key '(.*)' not found", reason)
        if missing is None:
            return f"{key}: {reason}"
        if key.startswith("hydra."):
            return (
                f"${{{missing[1]}}} in a directory's name is taken for a reference, and there is no such key: rename it"
            )
        return (
            f"{key}: ${{{missing[1]}}} refers to a key of the configuration, and there is none of this name; "
            f"a variable is ${{oc.env:{missing[1]}}}, and plain text is written \\${{{missing[1]}}}"
        )
    override = re.match(r"Error merging override (.*)", text)
    stated = re.search(r"[Vv]alue '(.*?)'", reason)
    what = override[1] if override else f"{key}={stated[1]}" if stated else key
    if "does not support deletion" in reason:
        return f"{what}: a key cannot be taken away; set it, to null where it can be without a value"
    entry = table.find(key)
    if re.match(r"\+?domain\.", what):
        name, _, tasks = what.lstrip("+").removeprefix("domain.").partition("=")
        name = name.partition(".")[0]
        if name not in sources.choices("domain"):
            return _unknown_key(f"domain.{name}", sources)
        return f"{what}: domains are selected with domain=[...], their tasks with domain.{name}.tasks={tasks or '...'}"
    if entry is None or entry.members is not None:
        return f"{what}: {reason}"
    kind = entry.wanted()
    value = what.partition("=")[2]
    members = kind.removeprefix("one of ").removesuffix(" or null").split(", ") if "one of" in kind else []
    return f"{what}: {key} takes {kind}.{did_you_mean(nearest(value, members))}"


def _unknown_key(key: str, sources: Sources) -> str:
    parts = key.split(".")
    if open_group := next((part for part in ("extra_body", "retrieval_options") if part in parts), None):
        return f"{key}: what goes into {open_group} is added with a plus: +{key}=..."
    if parts[0] == "domain" and len(parts) > 1:
        there = sources.choices("domain")
        if parts[1] in there:
            return (
                f"{key}: the domain {parts[1]} is not selected. "
                f"Add it to the list of domain=[...], or leave this key out."
            )
        return f"{key}: there is no domain {parts[1]}.{did_you_mean(nearest(parts[1], there))} {NO_TASKS}"
    if "scaffold" in parts:
        return _unknown_option(key, sources)
    return unknown_key(key, sources)


def _unknown_option(key: str, sources: Sources) -> str:
    """What to say of an option that the chosen scaffold lacks."""
    group, _, option = key.partition(".scaffold.")
    options = sources.options(f"{group}/scaffold")
    others = [f"{group}/scaffold={name}" for name, known in options.items() if option in known]
    meant = nearest(option, {name for known in options.values() for name in known})
    hint = (
        f" It is one of {' and '.join(others)}."
        if others
        else did_you_mean([f"{group}.scaffold.{name}" for name in meant])
    )
    return (
        f"{key}: the chosen file of {group}/scaffold/ has no such option.{hint} "
        f"One that its code takes all the same is added with a plus: +{key}=..."
    )


def _null_where_none_can_be(text: str, overrides: Sequence[str], sources: Sources) -> str:
    """Hydra's asserts that a group is not null, and that the parent of a key is not."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if value == "null" and (there := sources.choices(key)):
            return f"{override}: choose one of {', '.join(there)}"
    for override in overrides if "None" in text else ():
        key = override.lstrip("+~").partition("=")[0]
        for part in table.optional_groups():
            if f"{key}.".startswith(f"{part}."):
                ways = f"choose another {key.partition('.')[0]}=..., or set it in a file of conf/experiment/"
                return f"{override}: {part} is null here, and what it has cannot be set; {ways}"
    return " ".join(text.split())


def _several_values(key: str, value: str) -> str:
    entry = table.find(key)
    ways = ["with --multirun"]
    if key == "domain" or (entry is not None and _is_list(entry)):
        ways.append(f"or one list: {shell_word(f'{key}=[{value}]')}")
    elif entry is not None and _is_text(entry):
        ways.append(f"or one text: {typed_setting(key, value)}")
    return f"{key}={value}: several values are a sweep, {', '.join(ways)}"


def _is_list(entry: table.KeyEntry) -> bool:
    return entry.wanted().startswith("a list")


def _is_text(entry: table.KeyEntry) -> bool:
    return entry.wanted().startswith("text")


def _first_unparsed(settings: Sequence[str]) -> str | None:
    """What is wrong with the first argument that is no override; Hydra's own message often blames another one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()

    def problem(setting: str) -> str | None:
        try:
            parser.parse_override(setting)
        except Exception as error:  # Hydra's, ANTLR's, and those of the Python beneath them
            return str(error)
        return None

    for setting in settings:
        key, equals, value = setting.partition("=")
        reason = problem(setting)
        if not equals and not key.startswith("~"):
            return (
                f"{setting}: arguments are key=value.{did_you_mean([f'{near}=...' for near in nearest_keys(setting)])}"
            )
        if not key.strip("+~") or (reason is not None and problem(f"{key}=1") is not None):
            return f"{setting}: what stands before = is no name of a key.{did_you_mean(nearest_keys(key))}"
        if reason is not None:
            entry = table.find(key.lstrip("+~"))
            if entry is not None and entry.members is None and not _is_list(entry) and not _is_text(entry):
                return f"{setting}: {entry.name} takes {entry.wanted()}"
            is_list = entry is not None and _is_list(entry)
            where = re.search(r"(?:at|input):? '(.+?)'(?: expecting|$)", reason.partition("\n")[0], re.S)
            at = f" (at {where[1]})" if where and where[1] != "<EOF>" else ""
            return f"{setting}: not understood{at}. Quote the value:\n  {typed_setting(key, value, is_list=is_list)}"
    return None
