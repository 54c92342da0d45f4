"""What `tau2-fleet run --help` prints: usage, the groups of `conf/`, and every key as its settings class describes it.

Quick, for it needs no Hydra.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from tau2_fleet.config import table
from tau2_fleet.config.names import did_you_mean, nearest
from tau2_fleet.config.schema import Section
from tau2_fleet.config.sources import Sources, sources
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.key import Resume
from tau2_fleet.paths import CONF_DIR

_USAGE = """\
tau2-fleet runs τ²-bench, the benchmark of customer-service agents, against a fleet of vLLM servers of your own.

  tau2-fleet run experiment=smoke                                  does it work here? no GPU, no key, no network
  tau2-fleet run agent.model=Qwen/Qwen3-8B domain=retail num_tasks=10
  tau2-fleet run agent.model=/ckpt 'domain=[retail,airline]' server.num=4 num_trials=4
  tau2-fleet run --multirun agent.model=/ckpt domain=retail,airline seed=300,301     a sweep: four runs
  tau2-fleet run resume=outputs/DATE/TIME-ID                       go on with a run, or a sweep: resume=multirun/...

In a checkout: python -m src.main in place of tau2-fleet run. More of a key or a group of keys: --help server.num
"""

_END = """\
  hydra.run.dir, hydra.sweep.dir  where to write [outputs/DATE/TIME-ID, multirun/DATE/TIME-ID]
API keys are variables, or lines of .env in the working directory: OPENAI_API_KEY, ANTHROPIC_API_KEY, NEBIUS_API_KEY,
TOGETHER_API_KEY, WANDB_API_KEY.

== Flags ==
  --multirun, -m                  a sweep: one run for each combination of a,b values
  --config-dir DIR                also the groups and files of a folder of your own, laid out like conf/
  --cfg job                       print the composed configuration instead of running it
  --info defaults                 print which files it is composed of
  --hydra-help                    Hydra's other flags

== Exit status ==
"""

_MEANINGS = {
    "experiment": "whole settings to start from",
    "llm": "models described once, for user_llm, judge and experts",
}
"""Of the groups that no key is named after."""
_HELP = ("--help", "-h")
_WIDTH = 118
_MARGIN = 34


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether these arguments ask for help."""
    return any(argument in _HELP for argument in arguments)


def text(arguments: Sequence[str] = ()) -> str:
    """The help, ready to print; with the name of a key or group beside `--help`, all that is known of that.

    Raises:
        UserError: there is no such key.
    """
    there = sources(arguments)
    asked = [now for before, now in zip(["", *arguments], arguments, strict=False) if before in _HELP]
    if asked and re.fullmatch(r"\w[\w.]*", asked[0]):
        return "\n".join(_of_one(asked[0], there)) + "\n"
    parts = [_USAGE, _heading("Groups", "group=choice; each file conf/GROUP/CHOICE.yaml says when; * is the default")]
    parts += _groups(there)
    parts += ["", _heading("Keys", "key=value; the default in brackets")]
    seen: dict[type[Any], str] = {}
    for section in Section:
        parts.append(section.value)
        parts += _section(section, seen)
    statuses = [f"  {status.value:<5} {status.meaning}" for status in ExitStatus]
    return "\n".join([*parts, _END.rstrip(), *statuses, ""])


def _heading(title: str, more: str) -> str:
    return f"== {title} ({more}) =="


def _groups(there: Sources) -> Iterator[str]:
    defaults = _defaults()
    named = there.groups()
    for group in sorted(named, key=lambda name: (name != "experiment", name == "llm", name)):
        entry = table.find(group.replace("/", "."))
        chosen = defaults.get(group, ())
        starred = [f"{choice}*" if choice in chosen else choice for choice in there.choices(group)]
        meaning = _MEANINGS.get(group) or (entry.key.help.partition(":")[0] if entry is not None else "")
        yield _line(group, f"{meaning}: {', '.join(starred)}" if meaning else ", ".join(starred))
    yield "  llm@user_llm=qwen3-32b-together makes any model of llm the user; likewise llm@judge=...,"
    yield "  llm@experts.expert_1.llm=..."


def _defaults() -> dict[str, list[str]]:
    """The choices in the defaults list of `conf/config.yaml`."""
    found = re.findall(r"^  - ([\w/]+): \[?([^\]\n]+)\]?$", (CONF_DIR / "config.yaml").read_text("utf-8"), re.M)
    return {group: [choice.strip() for choice in choices.split(",")] for group, choices in found}


def _section(section: Section, seen: dict[type[Any], str]) -> Iterator[str]:
    for entry in table.table().values():
        if "." not in entry.name and (entry.key.section or Section.run) == section:
            yield from _lines(entry, seen)


def _lines(entry: table.KeyEntry, seen: dict[type[Any], str]) -> Iterator[str]:
    """The lines of a key, or of a group and all in it; keys of a class that was shown before are not shown again."""
    if entry.name == "domain":
        yield _line("domain", entry.key.help, ", ".join(_defaults().get("domain", ())))
        yield from _inside(f"domain.{table.ANY_DOMAIN}", seen)
    elif entry.members is None:
        yield _line(entry.name, entry.key.help, _default(entry))
    elif entry.members in seen:
        yield _line(f"{_spelt(entry.name)}.*", f"{entry.key.help}; {_like(seen[entry.members], entry.name)}")
    elif entry.key.packed:
        yield _line(f"{_spelt(entry.name)}.*", entry.key.help)
        yield _filled(", ".join(_packed(entry.name)), " " * 6)
    else:
        yield from _inside(entry.name, seen)
    for kind in () if entry.members is None else entry.members.__mro__[:-1]:
        seen.setdefault(kind, _spelt(entry.name))


def _inside(group: str, seen: dict[type[Any], str]) -> Iterator[str]:
    base = _base(group, seen)
    if base is not None:
        yield _line(f"{_spelt(group)}.*", f"{table.table()[group].key.help}; {_like(base, group)}, and:")
    for entry in _children(group):
        if base is not None and table.find(f"{base}.{entry.name.rpartition('.')[2]}") is not None:
            continue
        if not re.search(r"_[2-9]$", entry.name):  # the first of several alike stands for all
            yield from _lines(entry, seen)


def _like(base: str, group: str) -> str:
    """That a group has the keys of another one, with those that it does not have."""
    own = {entry.name.rpartition(".")[2] for entry in _children(group)}
    others = [name for entry in _children(base) if (name := entry.name.rpartition(".")[2]) not in own]
    return f"keys as those of {base}" + (f" but {', '.join(others)}" if others else "")


def _base(group: str, seen: dict[type[Any], str]) -> str | None:
    """The group shown before whose class this one's extends."""
    entry = table.table().get(group)
    kinds = entry.members.__mro__[1:] if entry is not None and entry.members is not None else ()
    return next((seen[kind] for kind in kinds if kind in seen), None)


def _children(group: str) -> Iterator[table.KeyEntry]:
    for entry in table.table().values():
        if entry.name.rpartition(".")[0] == group:
            yield entry


def _packed(group: str) -> Iterator[str]:
    for name, entry in table.table().items():
        if name.startswith(f"{group}.") and entry.members is None:
            yield f"{name.removeprefix(group)} [{_default(entry)}]"


def _spelt(name: str) -> str:
    return re.sub(r"_1\b", "_N", name)


def _line(name: str, meaning: str, default: str | None = None) -> str:
    bracket = "" if default is None else f" [{default}]"
    name = f"  {_spelt(name)}"
    gap = " " * _MARGIN
    first = f"{name:<{_MARGIN}}" if len(name) < _MARGIN else f"{name}  "
    return _filled(f"{meaning}{bracket}", first, gap)


def _filled(content: str, first: str, rest: str | None = None) -> str:
    return textwrap.fill(
        content, _WIDTH, initial_indent=first, subsequent_indent=first if rest is None else rest, break_on_hyphens=False
    )


def _default(entry: table.KeyEntry) -> str:
    return entry.key.shown or value_text(entry.default)


def value_text(value: Any) -> str:
    """A value as a configuration file spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list):
        return f"[{', '.join(value_text(part) for part in value)}]"
    if isinstance(value, dict):
        return "{}" if not value else f"{{{', '.join(f'{name}: {value_text(part)}' for name, part in value.items())}}}"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else str(value)
    return '""' if value == "" else str(value)


_RESUMED = {
    Resume.fixed: "results depend on it: the same when a run is resumed",
    Resume.may_grow: "may grow when a run is resumed, not shrink",
    Resume.may_differ: "may be another when a run is resumed",
}


def _of_one(name: str, there: Sources) -> Iterator[str]:
    """All that is known of one key, or of all keys in a group."""
    entry = table.find(name)
    choices = there.choices(name.replace(".", "/"))
    if entry is None and not choices:
        known = [*table.key_names(there.choices("domain")), *there.groups()]
        raise UserError(f"{name}: there is no such key.{did_you_mean(nearest(name, known))} All keys: --help")
    if choices:
        yield _filled(f"{name}=... one of {', '.join(choices)}", "")
    if entry is None:
        return
    members = [entry]
    if entry.members is not None or name == "domain":
        members = [
            found for key, found in table.table().items() if key.startswith(f"{name}.") and found.members is None
        ]
    for member in members:
        kind = f"{member.wanted()}, {member.key.range}" if member.key.range else member.wanted()
        yield f"{member.name} [{_default(member)}]"
        yield _filled(member.key.help, "    ")
        yield _filled(f"{kind}; {_RESUMED[member.resume]}", "    ")
