"""`tau2-fleet merge` of four shards with 20,000 simulations and their events: CPU, and memory beside a tenth of them.

The shards are one real run of airline's tasks, its records and events written again under other trials.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.exports import measured
from benchmarks.rows import Row
from tau2_fleet.paths import CHECKOUT

SIMULATIONS = 20_000
SHARDS = 4
_TASKS = 50


def rows(*, quick: bool) -> list[Row]:
    """Milliseconds of CPU per simulation, MiB at most of the merge, and what each further simulation takes of them."""
    count = 2_000 if quick else SIMULATIONS
    with TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        real = _real_run(Path(folder) / "real")
        _, small_mib = _merged(real, small, count // 10)
        cpu_s, mib = _merged(real, large, count)
        megabytes = sum(path.stat().st_size for path in large.rglob("simulations.jsonl")) / 2e6
    detail = {"simulations": count, "shards": SHARDS, "MB of records": round(megabytes)}
    each_kib = (mib - small_mib) * 1024 / (count * 0.9)
    return [
        Row("merge/cpu", cpu_s / count * 1000, None, "ms/simulation", limit=3.0, detail=detail),
        Row("merge/memory", mib, None, "MiB", limit=500.0, detail=detail),
        Row("merge/memory for one more simulation", each_kib, None, "KiB", limit=10.0, detail=detail),
    ]


def _real_run(directory: Path) -> Path:
    words = ["experiment=simulated", "domain=[airline]", "server.num=1", "wandb=disabled", "report=false"]
    command = [sys.executable, "-m", "tau2_fleet", "run", *words, f"hydra.run.dir={directory}"]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    return directory


def _merged(real: Path, folder: Path, count: int) -> tuple[float, float]:
    """Seconds of CPU and MiB at most of a merge of so many simulations."""
    trials = count // _TASKS
    shards = [folder / f"s{index}" for index in range(SHARDS)]
    for index, shard in enumerate(shards):
        _write_shard(real, shard, index, trials)
    return measured(["merge", *map(str, shards), "-o", str(folder / "whole"), "--no-report"])


def _write_shard(real: Path, shard: Path, index: int, trials: int) -> None:
    """The real run's record and events under every fourth trial."""
    shutil.copytree(real, shard)
    path = shard / ".hydra" / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config |= {"num_trials": trials, "shard": {**config["shard"], "index": index, "count": SHARDS}}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    for name in ("simulations.jsonl", "profile.jsonl"):
        lines = [json.loads(line) for line in (real / name).read_text().splitlines()]
        with (shard / name).open("w") as file:
            for trial in range(index, trials, SHARDS):
                for line in lines:
                    file.write(json.dumps({**line, "trial": trial} if "trial" in line else line) + "\n")
