"""Whether runs may become one: what `merge` refuses, each by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.batch.shard import Shard
from tau2_fleet.config import Config, flat, result_digest
from tau2_fleet.config.compare import Difference, different_result_keys
from tau2_fleet.record.merging_records import RecordIndex, different_models, overlap
from tau2_fleet.run.plan import own_shard

_NAMED = 6


class RefusedMerge(Exception):
    """These runs may not be put together; the message says which of them, and why."""


@dataclass(frozen=True, slots=True)
class MergedRun:
    """One of the runs that are to become one."""

    directory: Path
    config: Config
    digests: Mapping[str, Mapping[str, str]]
    """Of the data that it began with."""
    summary: Mapping[str, Any]
    """Empty: it was killed before it had one."""
    index: RecordIndex

    @property
    def shard(self) -> Shard:
        return own_shard(self.config)


def refuse_different(runs: Sequence[MergedRun]) -> None:
    """Raises RefusedMerge for runs whose results do not belong together."""
    first = runs[0]
    for run in runs[1:]:
        both = f"{first.directory} and {run.directory}"
        if result_digest(first.config) != result_digest(run.config):
            raise RefusedMerge(f"{both} differ in {_listed(different_result_keys(first.config, run.config))}")
        for part in first.digests.keys() & run.digests.keys():
            names = first.digests[part].keys() | run.digests[part].keys()
            other = [name for name in sorted(names) if first.digests[part].get(name) != run.digests[part].get(name)]
            if other:
                raise RefusedMerge(f"{both} were run on other data: {part}: {', '.join(other[:_NAMED])}")
        here, there = (_benchmark(one.summary) for one in (first, run))
        if here and there and here != there:
            raise RefusedMerge(f"{both} are of other benchmarks: {here} and {there}")
        for name in first.config.domain.keys() & run.config.domain.keys():
            tasks = [one.config.domain[name].tasks for one in (first, run)]
            if tasks[0] != tasks[1]:
                raise RefusedMerge(f"{both} differ in domain.{name}.tasks ({tasks[0]}, {tasks[1]})")
        if (first.config.task_ids_file is None) != (run.config.task_ids_file is None):
            raise RefusedMerge(f"{both}: only one of them is of tasks that a file chose (task_ids_file)")
    found = different_models([run.index for run in runs])
    if found is not None:
        role, named = found
        told = ", ".join(f"{model} in {directory}" for directory, model in list(named.items())[:_NAMED])
        raise RefusedMerge(f"other models played the {role}: {told}")


def refuse_twice(runs: Sequence[MergedRun]) -> None:
    """Raises RefusedMerge for directories that are named twice, or hold the same part."""
    named = Counter(run.directory.resolve() for run in runs)
    twice = [str(run.directory) for run in runs if named[run.directory.resolve()] > 1]
    if twice:
        raise RefusedMerge(f"{twice[0]} is named twice")
    shards = Counter(run.shard for run in runs if run.shard.count > 1)
    for shard, times in shards.items():
        if times > 1:
            same = [str(run.directory) for run in runs if run.shard == shard]
            raise RefusedMerge(f"{' and '.join(same[:_NAMED])} are the same part, {shard}")


def refuse_overlap(runs: Sequence[MergedRun]) -> None:
    """Raises RefusedMerge for simulations that two runs have."""
    found = overlap([run.index for run in runs])
    if found is not None:
        key, here, there = found
        raise RefusedMerge(f"{key.label} is in {here} and in {there}")


def refuse_missing_shards(runs: Sequence[MergedRun]) -> None:
    """Raises RefusedMerge for shards of which some are not there, or that are parts of different wholes."""
    first = runs[0]
    for run in runs:
        if run.shard.count != first.shard.count:
            told = [_part(first), _part(run)]
            raise RefusedMerge(f"these are no parts of one run: {told[0]}, {told[1]}")
    if first.shard.count == 1:
        return
    there = {run.shard.index for run in runs}
    missing = [index for index in range(first.shard.count) if index not in there]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (" and more" if len(missing) > _NAMED else "")
        what = "shard" if len(missing) == 1 else "shards"
        raise RefusedMerge(f"{what} {named} of {first.shard.count} missing")
    for run in runs[1:]:
        other = [key for key, value in _chosen(first.config).items() if _chosen(run.config).get(key) != value]
        if other:
            raise RefusedMerge(f"{first.directory} and {run.directory} are no parts of one run: {', '.join(other)}")


def _part(run: MergedRun) -> str:
    return f"{run.directory} is {run.shard if run.shard.count > 1 else 'a whole run'}"


def _chosen(config: Config) -> dict[str, Any]:
    """The keys that say which simulations a run has, beside its part of them."""
    names = ("num_trials", "num_tasks", "task_ids")
    chosen = {key: value for key, value in flat(config).items() if key in names or key.endswith(".tasks")}
    return {"domain": list(config.domain), **chosen}


def _benchmark(summary: Mapping[str, Any]) -> str:
    """What a run was scored by, where its summary says so: name, rules and code."""
    found = summary.get("benchmark")
    if not isinstance(found, Mapping):
        return ""
    code = found.get("code")
    digest = str(code.get("digest") or "")[:12] if isinstance(code, Mapping) else ""
    return " ".join(filter(None, (str(found.get("name")), f"scored by {found.get('scoring')}", digest)))


def _listed(differences: Mapping[str, Difference]) -> str:
    shown = [f"{key} ({_short(here)}, {_short(there)})" for key, (here, there) in differences.items()]
    return _joined(shown) or "keys that only one of them knows"


def _joined(words: Iterable[str]) -> str:
    shown = list(words)
    return ", ".join(shown[:_NAMED]) + (f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else "")


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
