"""Mirrors a run to Weights & Biases without ever touching its pace: wandb lives in a process of its own.

`experiment.py` opens a `Tracker` around a run and calls `finish` once the run directory is complete. A thread
sends the child a snapshot of the running numbers every few seconds; a child that is slow, hangs or dies costs
the run nothing but the mirror. What the child does is in `tracker_process`.
"""

from __future__ import annotations

import logging
import netrc
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.paths import IMPORT_ROOT
from tau2_fleet.telemetry.events import Event
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.secrets import redact
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking.live_metrics import LiveMetrics
from tau2_fleet.tracking.start import TrackedRun, first_message, plain

SNAPSHOT_EVERY_S = 10.0
FINISH_TIMEOUT_S = 120.0
"""How long the end of a run waits for the upload; what is left can be synced later."""

_CHILD = "tau2_fleet.tracking.process"
_PASSED_ON = ("WANDB_", "LC_", "SSL_", "REQUESTS_", "CURL_")
_PASSED_ON_NAMES = frozenset(
    {"HOME", "PATH", "PYTHONPATH", "LANG", "TMPDIR", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
    | {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "NO", "ALL")}
    | {f"{kind}_proxy" for kind in ("http", "https", "no", "all")}
)
_DEFAULT_HOST = "https://api.wandb.ai"

logger = logging.getLogger(__name__)


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a W&B key is there: in WANDB_API_KEY, or in the `.netrc` that `wandb login` writes."""
    if environment.get("WANDB_API_KEY"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or _DEFAULT_HOST).hostname or ""
    path = Path(environment.get("NETRC") or Path(environment.get("HOME", "/")) / ".netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def resolve_mode(mode: WandbMode, environment: Mapping[str, str] = os.environ) -> WandbMode:
    """The mode a run gets: `auto` follows WANDB_MODE if set, else the presence of a key.

    Raises:
        UserError: `online` is asked for and there is no key.
    """
    if mode is WandbMode.auto:
        wanted = environment.get("WANDB_MODE", "")
        if wanted in ("offline", "dryrun", "disabled"):
            return WandbMode.disabled if wanted == "disabled" else WandbMode.offline
        return WandbMode.online if has_key(environment) else WandbMode.offline
    if mode is WandbMode.online and not has_key(environment):
        raise UserError("wandb.mode=online needs a key: set WANDB_API_KEY or run `wandb login`, or use wandb=offline")
    return mode


@dataclass(slots=True)
class _Child:
    """What is known of the child."""

    started: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    mode: str = ""
    url: str | None = None
    problem: str | None = None


class Tracker:
    """The W&B side of one run; a context manager, which `finish` ends in good order.

    Args:
        settings: `conf/wandb`.
        run_dir: W&B's own files go to `run_dir/wandb`.
        run: what there is to say at the start.
        counters: the progress display's running numbers.

    Raises:
        UserError: `wandb.mode=online` without a key.
    """

    def __init__(
        self,
        settings: WandbSettings,
        run_dir: Path,
        run: TrackedRun,
        counters: RunCounters,
        *,
        interval_s: float = SNAPSHOT_EVERY_S,
        finish_timeout_s: float = FINISH_TIMEOUT_S,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.mode = resolve_mode(settings.mode, environment)
        self._first = first_message(run, settings, self.mode, run_dir, finish_timeout_s)
        self._run_dir = run_dir
        self._metrics = LiveMetrics(counters)
        self._interval_s = interval_s
        self._finish_timeout_s = finish_timeout_s
        self._environment = environment
        self._child = _Child()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._final: dict[str, Any] = {}
        self._worker: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.mode is not WandbMode.disabled:
            self._worker = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self.finish({}, 0 if kind is None else 1)

    def listen(self, event: Event) -> None:
        """Take one event of the run."""
        self._metrics.listen(event)

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        """Send what the run came to and wait for the upload, at most `finish_timeout_s`. Blocks: call it in a thread.

        Args:
            summary: its numbers and short texts go to the W&B summary, named by their path (`retail/pass_1`).
            exit_code: of the run.

        Returns:
            A line for people: the run's address, or how to upload it. None where W&B is disabled.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        self._final = {"kind": "finish", "summary": plain(summary), "exit_code": exit_code}
        self._over.set()
        try:
            self._child.finished.wait(self._finish_timeout_s)
        finally:
            self._end_process()
            worker.join(5)
        return self._message()

    def abandon(self) -> None:
        """Let `finish` wait for the upload no longer; from any thread, also before it."""
        self._child.problem = self._child.problem or "interrupted"
        self._child.finished.set()

    def _message(self) -> str:
        child = self._child
        sync = f"upload it with: wandb sync {self._run_dir / 'wandb'}"
        if child.finished.is_set() and child.mode == "online" and child.problem is None:
            return f"W&B: {child.url}"
        if child.finished.is_set() and child.mode == "offline":
            why = f" ({child.problem})" if child.problem else ""
            return f"W&B: kept offline{why}; {sync}"
        if not child.started.is_set():
            return f"W&B: nothing recorded ({child.problem or 'it did not start in time'})"
        return f"W&B: not completed ({child.problem or 'the upload took too long'}); {sync}"

    def _work(self) -> None:
        """Start the child and feed it; runs in a thread of its own, which may block without harm."""
        try:
            process = self._spawn()
            threading.Thread(target=self._read, args=(process,), name="wandb replies", daemon=True).start()
            self._send(process, self._first)
            while not self._over.wait(self._interval_s):
                self._send(process, {"kind": "log", "values": self._metrics.snapshot()})
            self._send(process, {"kind": "log", "values": self._metrics.snapshot()})
            self._send(process, self._final)
        except (OSError, ValueError) as error:
            # The child is gone; what it said last, if anything, tells more than the broken pipe.
            if self._child.problem is None:
                self._child.problem = f"its process is gone: {error}"
            self._child.finished.set()
            logger.warning("W&B is left out from now on: %s", self._child.problem)

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value
            for name, value in self._environment.items()
            if name.startswith(_PASSED_ON) or name in _PASSED_ON_NAMES
        }
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(IMPORT_ROOT), environment.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        return self._process

    @staticmethod
    def _send(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(redact(orjson.dumps(message).decode()).encode() + b"\n")
        process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        child = self._child
        for line in process.stdout:
            reply = orjson.loads(line)
            if reply["kind"] == "started":
                child.mode, child.url = reply["mode"], reply["url"]
                child.started.set()
            elif reply["kind"] == "finished":
                child.finished.set()
            elif reply["kind"] == "problem":
                text = redact(reply["text"])
                child.problem = child.problem or text
                logger.warning("W&B: %s", text)
        if not child.finished.is_set() and child.problem is None and process.wait() != 0:
            child.problem = f"its process ended with status {process.returncode}"
        child.finished.set()

    def _end_process(self) -> None:
        """The child ends by itself when its work is done; one that does not is killed."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(2 if self._child.finished.is_set() else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
