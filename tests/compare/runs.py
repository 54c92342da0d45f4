"""Run directories made of records alone, quickly: what `compare`, `plan` and `forecast` read."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from tau2_fleet import cli
from tau2_fleet.config.compose import compose
from tau2_fleet.paths import CONF_DIR

Json = dict[str, Any]
Passed = Mapping[str, Sequence[float | str]]
"""Task (`domain/id`) to each trial's reward, or its ending."""


def record(task: str, trial: int, outcome: float | str, seed: int = 0, **more: Any) -> Json:
    """One line of the record."""
    domain, _, task_id = task.partition("/")
    failed = isinstance(outcome, str)
    return {
        "id": f"{task}-{trial}", "domain": domain, "task_id": task_id, "trial": trial, "seed": seed * 1000 + trial + 1,
        "reward": 0.0 if failed else float(outcome), "termination_reason": outcome if failed else "user_stop",
        "sub_rewards": {"DB": 0.0 if failed else float(outcome)}, "error": "the server died" if failed else None,
        "messages": [{"role": "assistant", "content": "Hi!"}, {"role": "tool", "content": "{}"}] * (1 + trial),
        "calls": [], "replies": {}, "duration_s": 10.0, "cost_by_role": {"agent": 0.25, "user": 0.05},
        "usage_by_role": {"agent": {"input_tokens": 900, "output_tokens": 100}}, **more,
    }  # fmt: skip


def write_run(directory: Path, passed: Passed, *overrides: str, seed: int = 0, summary: Json | None = None) -> Path:
    """A finished run with these outcomes, of the plain simulated configuration with these overrides."""
    (directory / ".hydra").mkdir(parents=True, exist_ok=True)
    (directory / ".hydra" / "config.yaml").write_text(_composed(overrides))
    lines = [record(task, trial, one, seed) for task, trials in passed.items() for trial, one in enumerate(trials)]
    (directory / "simulations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "summary.json").write_text(json.dumps({"duration_s": 100.0} if summary is None else summary))
    return directory


@cache
def _composed(overrides: tuple[str, ...]) -> str:
    """Hydra composes what names a group, once; values are put in by hand, which takes a hundredth of the time."""
    groups = tuple(one for one in overrides if (CONF_DIR / one.partition("=")[0]).is_dir())
    tree = _composed_groups(groups).copy()
    for one in overrides:
        key, _, value = one.partition("=")
        if one not in groups:
            OmegaConf.update(tree, key, yaml.safe_load(value), merge=False)
    return OmegaConf.to_yaml(tree)


@cache
def _composed_groups(groups: tuple[str, ...]) -> DictConfig:
    return compose(["experiment=simulated", "agent.model=old/model", *groups])


def drawn(rate: float, seed: int, tasks: int = 20, trials: int = 2) -> dict[str, list[float]]:
    """Outcomes of two domains' tasks that differ in difficulty, the same for every seed."""
    difficulty, luck = random.Random(1000), random.Random(seed)
    found = {}
    for task in range(tasks):
        chance = min(1.0, max(0.0, rate + difficulty.uniform(-0.3, 0.3)))
        name = f"{'airline' if task % 2 else 'retail'}/{task}"
        found[name] = [float(luck.random() < chance) for _ in range(trials)]
    return found


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """A command of the program in this process: exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main([str(argument) for argument in arguments])
    return int(status), out.getvalue(), " ".join(err.getvalue().split())
