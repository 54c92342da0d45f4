"""Two configurations side by side: may this one go on with that one's results, and how far is it from a reference."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tau2_fleet.config import table
from tau2_fleet.config.compose import compose
from tau2_fleet.config.schema import PROMPT_FILES, Config, DomainSettings, flat
from tau2_fleet.config.tasks import task_ids_of
from tau2_fleet.config.validation import unchecked_config
from tau2_fleet.key import Resume
from tau2_fleet.regular import read_whole

Difference = tuple[Any, Any]
"""The first configuration's value of a key and the second's."""

REFERENCES = ("official", "leaderboard")
"""The experiments that a run is compared with; the first is preferred where both are as near."""


def result_keys(config: Config) -> dict[str, Any]:
    """The keys on which the outcome of one simulation depends, and their values; not which simulations there are.

    Of `server` only whether it is simulated. Experts' fallbacks do not count: once the choice is made it is in `llm`.
    """
    keys = {
        key: value for key, value in flat(config).items() if _is(key, Resume.fixed) and not key.startswith("domain.")
    }
    for slot in ("experts.expert_1", "experts.expert_2", "experts.expert_3"):
        keys[slot] = keys.pop(f"{slot}.llm.model", None)
    if not config.experts.members():
        del keys["experts.hide_transfer_tool"], keys["experts.policy_edit"]
    if not config.judge.enabled:
        keys = {key: value for key, value in keys.items() if not key.startswith("judge.") or key == "judge.enabled"}
    for key in PROMPT_FILES:
        keys[key] = _contents(keys[key])
    keys["server.kind"] = "simulated" if config.server.kind_name == "simulated" else "real"
    return keys


def _contents(path: str | None) -> str | None:
    """What stands for a file wherever it lies, `sha256:…`; the path of one that cannot be read."""
    try:
        return None if path is None else f"sha256:{hashlib.sha256(read_whole(Path(path))).hexdigest()[:16]}"
    except OSError:
        return path


def _is(key: str, resume: Resume) -> bool:
    """Whether it is a key that holds a value, and of this class."""
    entry = table.find(key)
    return entry is not None and entry.members is None and entry.resume is resume


def _is_younger_default(key: str, value: Any) -> bool:
    """Whether a run from before this key was known meant the same."""
    entry = table.find(key)
    return entry is not None and entry.key.added and value == entry.default


def result_digest(config: Config, changed_data: Mapping[str, str] | None = None) -> str:
    """SHA-256 (hex) of the keys on which outcomes depend: equal where one run may go on with the other's results.

    Domains, tasks and trials can be added to a run and are not part of it.

    Args:
        changed_data: digests of the benchmark's data where they are not as released, by domain.
    """
    keys = {key: value for key, value in result_keys(config).items() if not _is_younger_default(key, value)}
    if changed_data:
        keys["benchmark.data"] = dict(changed_data)
    text = json.dumps(keys, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def different_result_keys(first: Config, second: Config) -> dict[str, Difference]:
    """The keys that change results in which two configurations differ, and both values."""
    return _differences(result_keys(first), result_keys(second))


def differing_keys(saved: Config, new: Config) -> dict[str, Difference]:
    """Why `new` cannot go on with the results of `saved`: the keys and both values; empty when it can.

    Domains, trials and tasks may be more than before, not fewer; log level, concurrency, limits, servers and
    W&B may be others.

    Raises:
        UserError: another task set is named, and the tasks of one of the two cannot be found.
    """
    differences = different_result_keys(saved, new)
    for name, before in saved.domain.items():
        after = new.domain.get(name)
        if after is None:
            differences["domain"] = (list(saved.domain), list(new.domain))
            continue
        prefix = f"domain.{name}."
        changed = _differences(flat(before, prefix), flat(after, prefix))
        differences |= {key: values for key, values in changed.items() if _is(key, Resume.fixed)}
        # Sets of one domain share its tasks; a file may give the same id to another task.
        from_file = before.tasks.endswith(".json") or after.tasks.endswith(".json")
        if before.tasks != after.tasks and (from_file or not _chosen_ids(saved, name) <= _chosen_ids(new, name)):
            differences[f"domain.{name}.tasks"] = (before.tasks, after.tasks)
    if new.num_trials < saved.num_trials:
        differences["num_trials"] = (saved.num_trials, new.num_trials)
    if new.num_tasks is not None and (saved.num_tasks is None or new.num_tasks < saved.num_tasks):
        differences["num_tasks"] = (saved.num_tasks, new.num_tasks)
    if new.task_ids is not None and (saved.task_ids is None or not set(saved.task_ids) <= set(new.task_ids)):
        differences["task_ids"] = (saved.task_ids, new.task_ids)
    # A part of the simulations may become all of them, but never another part.
    if new.shard.count > 1 and new.shard != saved.shard:
        pairs = {f"shard.{name}": (getattr(saved.shard, name), getattr(new.shard, name)) for name in ("index", "count")}
        differences |= {key: (was, now) for key, (was, now) in pairs.items() if was != now}
    return differences


def _chosen_ids(config: Config, name: str) -> set[str]:
    from tau2_fleet.benchmark.version import find_version

    chosen = config.domain[name]
    domain = find_version(config.benchmark).load_domain(
        name, chosen.data_dir, chosen.path, chosen.retrieval, chosen.retrieval_options
    )
    return {task.id for task in domain.tasks(chosen.tasks, task_ids_of(config, name), config.num_tasks)}


def departures(config: Config) -> tuple[str, dict[str, Difference]]:
    """The reference experiment of a run, and every key in which the run departs from it: (expected, actual).

    The reference is the one that the run started from by name, else the one with fewer departures. The model under
    test is what is measured, not a departure.
    """
    own = _compared(config)
    found = {name: _differences(_compared(_reference(name)), own) for name in REFERENCES}
    if config.experiment_name in found:
        return config.experiment_name, found[config.experiment_name]
    nearest = min(REFERENCES, key=lambda name: _distance(found[name]))
    return nearest, found[nearest]


@cache
def _reference(name: str) -> Config:
    """As its file means it: on the benchmark's own data, whatever the environment names."""
    config = unchecked_config(compose([f"experiment={name}"]))
    config.benchmark.data_dir = None
    return config


def _compared(config: Config) -> dict[str, Any]:
    keys = result_keys(config)
    keys |= {key: value for key, value in flat(config).items() if "." not in key and _is(key, Resume.may_grow)}
    keys["domain"] = sorted(config.domain)
    if keys["server.kind"] != "simulated":
        keys["server.kind"] = "vllm"  # as every reference has it; an external server is as good
    keys["benchmark.data_dir"] = config.benchmark.data_dir
    for last in (field.name for field in dataclasses.fields(DomainSettings)):
        keys |= {f"domain.{name}.{last}": getattr(domain, last) for name, domain in config.domain.items()}
    del keys["agent.model"]
    return keys


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Difference]:
    """The keys that both have with different values; where only one has a key, another key says why."""
    return {key: (first[key], second[key]) for key in first if key in second and first[key] != second[key]}


def _distance(differences: dict[str, Difference]) -> int:
    """Differences, those within one expert or one domain together."""
    return len({tuple(key.split(".")[:2]) for key in differences})
