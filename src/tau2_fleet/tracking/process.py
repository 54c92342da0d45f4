"""The process that talks to wandb: reads messages from `tracker` on standard input, one JSON line each.

Its parent's end is the end of its input: it then closes the W&B run and goes within seconds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Literal

import orjson

from tau2_fleet.telemetry.secrets import protect_environment, redact
from tau2_fleet.tracking.tables import Table, durations_ms, flat, run_files, simulations_table

_INIT_TIMEOUT_S = 30.0
_ORPHAN_GRACE_S = 10.0
_BINS = 64


class Child:
    """One W&B run, from the `start` message to `finish` or the end of input."""

    def __init__(self, replies: IO[bytes]) -> None:
        self._replies = replies
        self._run: Any = None
        self._run_dir = Path()
        self._transcripts = False
        self._key_files: frozenset[Path] = frozenset()
        self._step = 0
        self._mode: Literal["online", "offline"] = "offline"

    def handle(self, message: Mapping[str, Any]) -> None:
        """Act on one message; a failure is told to the parent, and the next message is served all the same."""
        actions: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "start": self._start,
            "log": self._log,
            "finish": self._finish,
        }
        try:
            actions[message["kind"]](message)
        except Exception as error:
            self._problem(f"{message['kind']}: {type(error).__name__}: {error}")
        if message["kind"] == "finish":
            self._reply({"kind": "finished"})

    def orphaned(self) -> None:
        """The parent has gone without a word."""
        if self._run is None:
            return
        last = threading.Timer(_ORPHAN_GRACE_S, os._exit, (1,))
        last.daemon = True
        last.start()
        self._run.finish(exit_code=255)

    def _start(self, message: Mapping[str, Any]) -> None:
        self._run_dir = Path(message["run_dir"])
        self._transcripts = bool(message["transcripts"])
        self._key_files = frozenset(map(Path, message["key_files"]))
        place = self._run_dir / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_CACHE_DIR"] = str(place / "cache")
        os.environ["WANDB_DATA_DIR"] = str(place / "data")
        os.environ["WANDB_ARTIFACT_DIR"] = str(place / "artifacts")
        import_module("wandb")  # where it is missing, that is what is said
        identity = self._identity()
        self._mode = message["mode"]
        try:
            self._run = self._init(message, identity, self._mode)
        except Exception as error:
            if self._mode != "online":
                raise
            self._problem(f"cannot go online, {type(error).__name__}: {_first_line(error)}")
            self._mode = "offline"
            self._run = self._init(message, identity, self._mode)
        self._step = max(self._step, int(self._run.step))
        self._run.define_metric("finished")
        self._run.define_metric("*", step_metric="finished")
        self._reply({"kind": "started", "mode": self._mode, "url": self._run.url})

    def _identity(self) -> str:
        """The W&B run's id, the same for every attempt of a run; the step goes on where the last attempt was."""
        try:
            known = orjson.loads(self._identity_file.read_bytes())
            self._step = int(known["step"])
            return str(known["id"])
        except (OSError, orjson.JSONDecodeError, KeyError, ValueError):
            identity = token_hex(4)
            self._keep_identity(identity)
            return identity

    @property
    def _identity_file(self) -> Path:
        return self._run_dir / "wandb" / "run_id.json"

    def _keep_identity(self, identity: str) -> None:
        new = self._identity_file.with_suffix(".new")
        new.write_bytes(orjson.dumps({"id": identity, "step": self._step}))
        new.replace(self._identity_file)

    def _init(self, message: Mapping[str, Any], identity: str, mode: Literal["online", "offline"]) -> Any:
        import wandb

        return wandb.init(
            dir=str(self._run_dir),
            mode=mode,
            id=identity,
            resume="allow",
            project=message["project"],
            entity=message["entity"],
            group=message["group"],
            job_type=message["job_type"],
            name=message["name"],
            tags=message["tags"],
            notes=message["notes"],
            config=message["config"],
            allow_val_change=True,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                init_timeout=_INIT_TIMEOUT_S,
                finish_timeout=message["finish_timeout_s"],
            ),
        )

    def _log(self, message: Mapping[str, Any]) -> None:
        self._log_values(message["values"])

    def _log_values(self, values: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        step = self._step
        self._step += 1
        self._keep_identity(self._run.id)
        self._run.log(dict(values), step=step)

    def _finish(self, message: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        for part in (self._tables, self._histograms, self._artifact):
            try:
                part()
            except FileNotFoundError:
                continue  # a run that ended early has not written all its files
            except Exception as error:
                self._problem(f"{part.__name__.strip('_')}: {type(error).__name__}: {error}")
        self._run.summary.update(flat(message["summary"]))
        self._run.finish(exit_code=message["exit_code"])

    def _tables(self) -> None:
        import wandb

        table: Table = simulations_table(self._run_dir, self._transcripts)
        self._log_values({"simulations": wandb.Table(columns=list(table.columns), data=table.rows)})

    def _histograms(self) -> None:
        import numpy
        import wandb

        histograms = {
            f"profile/{kind}_ms": wandb.Histogram(np_histogram=numpy.histogram(values, bins=_BINS))
            for kind, values in durations_ms(self._run_dir).items()
        }
        if histograms:
            self._log_values(histograms)

    def _artifact(self) -> None:
        import wandb

        artifact = wandb.Artifact(f"run-{self._run.id}", type="run", description=str(self._run_dir.name))
        # An offline run may be resumed before it is synced, which changes its files: it needs copies.
        policy = "immutable" if self._mode == "online" else "mutable"
        for path in run_files(self._run_dir, self._transcripts, self._key_files):
            artifact.add_file(str(path), name=str(path.relative_to(self._run_dir)), policy=policy)
        self._run.log_artifact(artifact)

    def _problem(self, text: str) -> None:
        self._reply({"kind": "problem", "text": redact(text)})

    def _reply(self, reply: Mapping[str, Any]) -> None:
        self._replies.write(orjson.dumps(reply) + b"\n")
        self._replies.flush()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def main() -> None:
    """Serve messages until `finish` or the end of input."""
    protect_environment()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # wandb's own words are no replies
    child = Child(replies)
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        child.handle(message)
        if message["kind"] == "finish":
            return
    child.orphaned()


if __name__ == "__main__":
    main()
