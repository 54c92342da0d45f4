"""`wandb.sink=wandb`: Weights & Biases, online or in the run directory."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import urllib.request
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal
from urllib.error import HTTPError

import orjson

from tau2_fleet.record.atomic import write_json
from tau2_fleet.regular import open_file, read_whole
from tau2_fleet.tracking.sink import RunStart, SinkStarted
from tau2_fleet.tracking.wandb_tables import WandbTable, durations_ms, flat_summary, run_files, simulations_table

_REACHED_S = 3.0
_INIT_TIMEOUT_S = 6.0
"""Both together stay below the ten seconds that a W&B which cannot be had may cost a run."""
_OFFLINE_INIT_TIMEOUT_S = 60.0
"""Nobody elsewhere is asked: what takes this long is a machine that is busy."""
_LOST_GRACE_S = 3.0
_COMPRESSED_BYTES = 1_000_000
"""Files above this are sent compressed; W&B would copy them whole into its staging folder first."""
_BINS = 64
_LOST = 255


class Wandb:
    """One W&B run, the same for every attempt of ours."""

    def __init__(self) -> None:
        self._run: Any = None
        self._start: RunStart | None = None
        self._step = 0
        self._mode: Literal["online", "offline"] = "offline"

    def start(self, run: RunStart) -> SinkStarted:
        import_module("wandb")  # where it is missing, that is what is said
        self._start = run
        place = run.run_dir / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_CACHE_DIR"] = str(place / "cache")
        os.environ["WANDB_DATA_DIR"] = str(place / "data")
        os.environ["WANDB_ARTIFACT_DIR"] = str(place / "artifacts")
        identity = self._identity()
        problem = self._go_online(identity) if run.mode == "online" else None
        if self._run is None:
            self._run = self._init(identity, "offline")
        self._step = max(self._step, int(self._run.step))
        self._run.define_metric("finished")
        self._run.define_metric("*", step_metric="finished")
        return SinkStarted(self._mode, self._run.url, problem)

    def _go_online(self, identity: str) -> str | None:
        """Why that cannot be, in a few words; None when the run is online."""
        import wandb

        url = _base_url()
        try:
            if not answers(url, _REACHED_S):
                raise ConnectionError(f"no answer from {url}")
            self._run = self._init(identity, "online")
        except Exception as error:
            # What the first try left behind would hold the run's id.
            _within(_LOST_GRACE_S, lambda: wandb.teardown(exit_code=1))
            return f"cannot go online, {type(error).__name__}: {_first_line(error)}"
        self._mode = "online"
        return None

    def _identity(self) -> str:
        """The W&B run's id, the same for every attempt of a run; the step goes on where the last attempt was."""
        try:
            known = orjson.loads(read_whole(self._identity_file))
            self._step = int(known["step"])
            return str(known["id"])
        except (OSError, orjson.JSONDecodeError, KeyError, ValueError):
            identity = token_hex(4)
            self._keep_identity(identity)
            return identity

    @property
    def _begun(self) -> RunStart:
        assert self._start is not None
        return self._start

    @property
    def _identity_file(self) -> Path:
        return self._begun.run_dir / "wandb" / "run_id.json"

    def _keep_identity(self, identity: str) -> None:
        write_json(self._identity_file, {"id": identity, "step": self._step})

    def _init(self, identity: str, mode: Literal["online", "offline"]) -> Any:
        import wandb

        run = self._begun
        return wandb.init(
            dir=str(run.run_dir),
            mode=mode,
            id=identity,
            resume="allow",
            project=run.project,
            entity=run.entity,
            group=run.group,
            job_type=run.job_type,
            name=run.name,
            tags=run.tags,
            notes=run.notes,
            config=run.config,
            allow_val_change=True,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                init_timeout=_INIT_TIMEOUT_S if mode == "online" else _OFFLINE_INIT_TIMEOUT_S,
                finish_timeout=run.finish_timeout_s,
            ),
        )

    def log(self, values: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        step = self._step
        self._step += 1
        self._keep_identity(self._run.id)
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        if self._run is None:
            return None
        problems = []
        for part in (self._tables, self._histograms, self._artifact) if exit_code != _LOST else ():
            try:
                part()
            except FileNotFoundError:
                continue  # a run that ended early has not written all its files
            except Exception as error:
                problems.append(f"{part.__name__.strip('_')}: {type(error).__name__}: {error}")
        self._run.summary.update(flat_summary(summary))
        if self._mode == "online" and not answers(_base_url(), _REACHED_S):
            problems.append(f"{_base_url()} does not answer any more")
            _within(_LOST_GRACE_S, lambda: self._run.finish(exit_code=exit_code))
        else:
            self._run.finish(exit_code=exit_code)
        return "; ".join(problems) or None

    def _tables(self) -> None:
        import wandb

        table: WandbTable = simulations_table(self._begun.run_dir, self._begun.transcripts)
        self.log({"simulations": wandb.Table(columns=list(table.columns), data=table.rows)})

    def _histograms(self) -> None:
        import numpy
        import wandb

        histograms = {
            f"profile/{kind}_ms": wandb.Histogram(np_histogram=numpy.histogram(values, bins=_BINS))
            for kind, values in durations_ms(self._begun.run_dir).items()
        }
        if histograms:
            self.log(histograms)

    def _artifact(self) -> None:
        import wandb

        run_dir = self._begun.run_dir
        artifact = wandb.Artifact(f"run-{self._run.id}", type="run", description=str(run_dir.name))
        packed = run_dir / "wandb" / "packed" / token_hex(4)
        # An offline run may be resumed before it is synced, which changes its files: it needs copies.
        policy = "immutable" if self._mode == "online" else "mutable"
        for path in run_files(run_dir, self._begun.transcripts, frozenset(map(Path, self._begun.key_files))):
            name = str(path.relative_to(run_dir))
            if path.stat().st_size > _COMPRESSED_BYTES:
                artifact.add_file(str(_compressed(path, packed / f"{name}.gz")), name=f"{name}.gz", policy="immutable")
            else:
                artifact.add_file(str(path), name=name, policy=policy)
        self._run.log_artifact(artifact)


def answers(url: str, limit_s: float) -> bool:
    """Whether an HTTP server answers there, whatever it says."""
    found = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=limit_s):
                found.append(True)
        except HTTPError:
            found.append(True)
        except (OSError, ValueError):
            return

    _within(limit_s, ask)
    return bool(found)


def _base_url() -> str:
    """Of the W&B that `wandb` itself would talk to: the environment's, or that of `wandb login --host`."""
    import wandb

    try:
        return str(wandb.setup().settings.base_url)
    except Exception:
        return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _within(limit_s: float, action: Callable[[], object]) -> None:
    """Do it, and wait for it no longer than that."""

    def quietly() -> None:
        try:
            action()
        except Exception:
            return

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(limit_s)


def _compressed(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_file(path) as source, gzip.open(target, "wb", compresslevel=1) as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
