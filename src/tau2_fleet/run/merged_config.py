"""The configuration of a run that was made of several: what all of them together asked for; `merge` writes it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from tau2_fleet.config.quoting import quoted
from tau2_fleet.record.atomic import write_json, write_text
from tau2_fleet.run.directory import COMPOSITION_DIR, TASK_IDS_FILE, load_tree, saved_overrides
from tau2_fleet.run.merge_checks import MergedRun
from tau2_fleet.run.plan import plan_run
from tau2_fleet.run.resume import DIGESTS_FILE

_OF_A_PART = ("shard", "resume", "resume_force")
_OF_THE_CHOICE = ("domain", "num_trials", "num_tasks", "task_ids", "task_ids_file")


def write_merged_config(runs: Sequence[MergedRun], target: Path, final: Path) -> list[str]:
    """Write `.hydra/` of the whole into `target`, which will be `final`; the overrides that its resume takes over.

    Raises:
        UserError: a run's configuration cannot be read, or nothing can be written.
    """
    folder = target / COMPOSITION_DIR
    trees = [DictConfig(load_tree(run.directory / COMPOSITION_DIR / "config.yaml")) for run in runs]
    merged = trees[0]
    OmegaConf.set_struct(merged, False)
    for key, value in (("shard.index", 0), ("shard.count", 1), ("resume", None)):
        OmegaConf.update(merged, key, value)
    overrides = [
        override
        for override in saved_overrides(runs[0].directory / COMPOSITION_DIR / "overrides.yaml")
        if not _is(override, _OF_A_PART) and not _name(override).startswith("hydra.")
    ]
    if runs[0].shard.count == 1:
        overrides = [override for override in overrides if not _is(override, _OF_THE_CHOICE)]
        overrides += _choose_all(runs, trees, merged, target, final)
    elif (runs[0].directory / TASK_IDS_FILE).is_file():
        shutil.copyfile(runs[0].directory / TASK_IDS_FILE, target / TASK_IDS_FILE)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(merged, resolve=True))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    hydra = runs[0].directory / COMPOSITION_DIR / "hydra.yaml"
    if hydra.is_file():
        shutil.copyfile(hydra, folder / "hydra.yaml")
    digests = {part: dict(files) for run in runs for part, files in run.digests.items()}
    if digests:
        write_json(target / DIGESTS_FILE, digests)
    return overrides


def _choose_all(
    runs: Sequence[MergedRun], trees: Sequence[DictConfig], merged: DictConfig, target: Path, final: Path
) -> list[str]:
    """Let `merged` choose the simulations of all these runs; the overrides that do so."""
    configs = [run.config for run in runs]
    for tree in trees[1:]:
        for name, domain in tree.domain.items():
            if name not in merged.domain:
                merged.domain[name] = domain
    names = list(merged.domain)
    trials = max(config.num_trials for config in configs)
    OmegaConf.update(merged, "num_trials", trials)
    OmegaConf.update(merged, "num_tasks", None)
    own = [
        override
        for run in runs
        for override in saved_overrides(run.directory / COMPOSITION_DIR / "overrides.yaml")
        if _name(override).startswith("domain.")
    ]
    overrides = [f"domain=[{','.join(names)}]", *dict.fromkeys(own), f"num_trials={trials}"]
    if all(config.task_ids is None and config.num_tasks is None for config in configs):
        whole = all(set(config.domain) == set(names) for config in configs)
        apart = len({name for config in configs for name in config.domain}) == sum(len(c.domain) for c in configs)
        if whole or apart:
            return overrides
    chosen = dict.fromkeys(
        f"{name}/{task.id}"
        for config in configs
        for name, tasks in plan_run(config).selection.tasks.items()
        for task in tasks
    )
    OmegaConf.update(merged, "task_ids", list(chosen))
    if configs[0].task_ids_file is None:
        return [*overrides, f"task_ids=[{','.join(map(quoted, chosen))}]"]
    write_text(target / TASK_IDS_FILE, "".join(f"{name}\n" for name in chosen))
    path = str(final / TASK_IDS_FILE)
    OmegaConf.update(merged, "task_ids_file", path)
    return [*overrides, f"task_ids_file={quoted(path)}"]


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _is(override: str, names: Sequence[str]) -> bool:
    """Whether an override is about one of these keys or groups, or what is beneath it."""
    return any(_name(override) == name or _name(override).startswith(f"{name}.") for name in names)
