"""Mirrors a run to a tracker without ever touching its pace: wandb, or another one, lives in a process of its own.

`experiment.py` opens a `Tracker` around a run and calls `finish` once the run directory is complete. A thread
sends the process a snapshot of the running numbers every few seconds; one that is slow, hangs, raises or dies costs
the run nothing but the mirror. What the process does is in `process.py`.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import target_of
from tau2_fleet.fleet.reaper.processes import MARK, Group, ProcessId, end, identify, is_runnable
from tau2_fleet.paths import IMPORT_ROOT
from tau2_fleet.telemetry.events import Event
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.secrets import redact
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings
from tau2_fleet.tracking.live_metrics import LiveMetrics
from tau2_fleet.tracking.mode import is_wandb, mode_of
from tau2_fleet.tracking.start import TrackedRun, first_message, plain_json

SNAPSHOT_EVERY_S = 10.0
FINISH_TIMEOUT_S = 120.0
"""How long the end of a run waits for the upload; what is left can be synced later."""
SILENCE_S = 6.0
"""After which a process that gives no sign of life is taken for frozen; the signs come every second."""

_MADE_S = 10.0
"""Patience with a tracker of the user's own until it is made."""
_LOOK_S = 0.2
_CHILD = "tau2_fleet.tracking.process"
_PASSED_ON = ("WANDB_", "LC_", "SSL_", "REQUESTS_", "CURL_")
_PASSED_ON_NAMES = frozenset(
    {"HOME", "PATH", "PYTHONPATH", "LANG", "TMPDIR", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
    | {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "NO", "ALL")}
    | {f"{kind}_proxy" for kind in ("http", "https", "no", "all")}
)
_NOT_PASSED_ON = frozenset({"WANDB_SERVICE"})
"""The address of another program's W&B service, which knows nothing of this run."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _TrackerProcess:
    """What is known of the tracker's process."""

    made: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    mode: str = ""
    url: str | None = None
    problem: str | None = None
    refusal: str | None = None
    """Why the tracker could not be made."""
    beats: int = 0
    """Signs of life."""


class Tracker:
    """The tracked side of one run; a context manager, which `finish` ends in good order.

    Args:
        settings: `conf/wandb`.
        run_dir: W&B's own files go to `run_dir/wandb`.
        run: what there is to say at the start.
        counters: the progress display's running numbers.

    Raises:
        UserError: `wandb.mode=online` without a key; on entering, a tracker of the user's own that cannot be made.
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
        self.mode = mode_of(settings, environment)
        self._is_wandb = is_wandb(settings)
        self._label = "W&B" if self._is_wandb else target_of(settings.sink)[0].rpartition(".")[2]
        self._first = first_message(run, settings, self.mode, run_dir, finish_timeout_s)
        self._run_dir = run_dir
        self._metrics = LiveMetrics(counters)
        self._interval_s = interval_s
        self._finish_timeout_s = finish_timeout_s
        self._environment = environment
        self._child = _TrackerProcess()
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = secrets.token_hex(16)
        self._leader: ProcessId | None = None
        self._ended = False
        self._over = threading.Event()
        self._final: dict[str, Any] = {}
        self._worker: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.mode is not WandbMode.disabled:
            self._worker = threading.Thread(target=self._work, name="tracker", daemon=True)
            self._worker.start()
            if not self._is_wandb:
                self._child.made.wait(_MADE_S)
                if self._child.refusal is not None:
                    self._over.set()
                    self._end_process()
                    raise UserError(self._child.refusal)
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
        try:
            self._final = {"kind": "finish", "summary": plain_json(summary), "exit_code": exit_code}
            self._over.set()
            self._await_end()
            message = self._message()
            self._end_process()
            worker.join(2)
            return message
        except Exception as error:  # the run's own end must not depend on its mirror's
            logger.warning("%s: its end failed", self._label, exc_info=True)
            return f"{self._label}: not completed ({type(error).__name__}: {error})"

    def _await_end(self) -> None:
        """Wait for the upload as long as its process lives.

        Looks are counted, not seconds: a runner that was itself frozen does not blame the tracker.
        """
        child, over = self._child, time.monotonic() + self._finish_timeout_s
        beats, silent_s = child.beats, 0.0
        while not child.finished.wait(min(_LOOK_S, max(over - time.monotonic(), 0))):
            silent_s = 0.0 if child.beats != beats or self._waits_for_its_turn() else silent_s + _LOOK_S
            beats = child.beats
            if silent_s > SILENCE_S:
                child.problem = child.problem or "its process stands still"
                return
            if time.monotonic() > over:
                return

    def _waits_for_its_turn(self) -> bool:
        """Whether its process could give a sign of life if this machine were less busy."""
        return self._leader is not None and is_runnable(self._leader)

    def abandon(self) -> None:
        """Let `finish` wait for the upload no longer; from any thread, also before it."""
        self._child.problem = self._child.problem or "interrupted"
        self._child.finished.set()

    @property
    def kept_offline(self) -> bool:
        """Whether all is in the run directory, as it was meant to be."""
        child = self._child
        return self._is_wandb and child.finished.is_set() and child.mode == "offline" and child.problem is None

    def _message(self) -> str:
        child = self._child
        if not self._is_wandb:
            if child.finished.is_set() and child.problem is None:
                return f"{self._label}: {child.url or 'done'}"
            return f"{self._label}: not completed ({child.problem or 'it took too long'})"
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
        except Exception as error:
            # The process is gone; what it said last, if anything, tells more than the broken pipe.
            if self._child.problem is None:
                self._child.problem = f"its process is gone: {error}"
            self._child.finished.set()
            if self._process is not None and not self._ended:
                logger.warning("%s is left out from now on: %s", self._label, self._child.problem)

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value
            for name, value in self._environment.items()
            if not self._is_wandb or name.startswith(_PASSED_ON) or name in _PASSED_ON_NAMES
            if name not in _NOT_PASSED_ON
        }
        # A tracker of the user's own is found where this process would find it.
        paths = [str(IMPORT_ROOT), *([path or os.getcwd() for path in sys.path] if not self._is_wandb else [])]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (*paths, environment.get("PYTHONPATH"))))
        environment[MARK] = self._mark
        self._process = subprocess.Popen(
            [sys.executable, "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._leader = identify(self._process.pid)
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
            if reply["kind"] == "beat":
                child.beats += 1
            elif reply["kind"] == "made":
                child.made.set()
            elif reply["kind"] == "refused":
                child.refusal = child.problem = redact(reply["text"])
                child.made.set()
            elif reply["kind"] == "started":
                child.mode, child.url = reply["mode"], reply["url"]
                child.started.set()
            elif reply["kind"] == "finished":
                child.finished.set()
            elif reply["kind"] == "problem":
                text = redact(reply["text"])
                child.problem = child.problem or text
                logger.warning("%s: %s", self._label, text)
        if not child.finished.is_set() and child.problem is None and process.wait() != 0:
            child.problem = f"its process ended with status {process.returncode}"
        child.made.set()
        child.finished.set()

    def _end_process(self) -> None:
        """The process ends by itself when its work is done; one that does not is killed, with all that it started."""
        process = self._process
        if process is None:
            return
        self._ended = True
        try:
            process.wait(2 if self._child.finished.is_set() else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._leader is not None:
            end([Group(self._leader, self._mark)], 0.0)  # W&B's own service has a session of its own
