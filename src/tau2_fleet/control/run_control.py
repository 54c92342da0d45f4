"""What `ctl` can do with a run: the run's own side, made by `experiment.py` and asked by `server.py`."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.batch.steering import Steering
from tau2_fleet.control.matching import matching_keys
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, ProviderRequests, State, Status, Verb
from tau2_fleet.control.settable import concurrency, set_level, set_timeout
from tau2_fleet.display.console import neutralise, tell
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.telemetry.lines import head
from tau2_fleet.telemetry.logs import Logs
from tau2_fleet.telemetry.run_counters import RunCounters

_CANCELLED = "cancelled by hand (tau2-fleet ctl cancel)"
_REMEMBERED = 20
_IDLE_TOLD = 10
_NAMED = 6


class Canceller(Protocol):
    """Whoever plays the simulations."""

    def cancel(self, key: SimulationKey, reason: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Playing:
    """The part of a run in which simulations are played."""

    runner: Runner
    players: Canceller
    steering: Steering
    routers: Sequence[PoolRouter]


class RunControl:
    """One run, from its beginning to its end."""

    def __init__(
        self,
        run_id: str,
        attempt: int,
        schedule: Schedule,
        store: Store,
        counters: RunCounters,
        limiters: Limiters,
        logs: Logs,
        *,
        leads_sweep: bool = False,
    ) -> None:
        """
        Args:
            schedule: all simulations of the run, those of earlier attempts included.
            leads_sweep: the run is the only one of its sweep that goes on, and the next begins after it.
        """
        self.doing = "checking what the run needs"
        """In a few words; set by `run/execution.py` as it goes on."""
        self.closing = False
        self.by_hand: list[str] = []
        """What was done through the socket, each with its time."""
        self.ends_sweep = False
        """Whether the sweep that the run is a job of is to end with it."""
        self._run_id = run_id
        self._attempt = attempt
        self._jobs = {job.key: job for job in schedule.jobs}
        self._store = store
        self._counters = counters
        self._limiters = limiters
        self._logs = logs
        self._leads_sweep = leads_sweep
        self._host = socket.gethostname()
        self._playing: Playing | None = None
        self._verbs: dict[Verb, Callable[[ControlRequest], ControlAnswer]] = {
            Verb.pause: self._pause,
            Verb.resume: self._resume,
            Verb.drain: self._drain,
            Verb.cancel: self._cancel,
            Verb.rerun: self._rerun,
            Verb.set: self._set,
        }

    def play(self, playing: Playing) -> None:
        """From now on simulations are played."""
        self._playing = playing
        self.doing = "simulations"

    def close(self) -> None:
        """The simulations are over."""
        self.closing = True
        self.doing = "writing what the run came to"

    # How it is

    def status(self, lag_s: float, stack: tuple[str, ...]) -> Status:
        """See `Controlled.status`."""
        playing = self._playing
        runner = None if playing is None else playing.runner
        gates = self._limiters.of_providers()
        return Status(
            state=self._state(),
            doing=self.doing,
            host=self._host,
            pid=os.getpid(),
            run_id=self._run_id,
            attempt=self._attempt,
            at_s=time.time(),
            shown=self._counters.snapshot(idle=_IDLE_TOLD),
            queued=0 if runner is None else runner.queued,
            withdrawn=0 if runner is None else len(runner.withdrawn),
            max_concurrency=None if runner is None else runner.max_concurrency,
            auto=playing is not None and playing.steering.on,
            requests=0 if playing is None else sum(router.in_flight for router in playing.routers),
            held=self._limiters.pause.held,
            providers={
                name: ProviderRequests(gate.in_flight, gate.waiting, gate.limit if math.isfinite(gate.limit) else None)
                for name, gate in gates.items()
            },
            log_level=logging.getLevelName(self._logs.level),
            lag_s=lag_s,
            stack=stack,
            by_hand=tuple(self.by_hand[-_REMEMBERED:]),
        )

    def _state(self) -> State:
        if self.closing:
            return State.closing
        runner = None if self._playing is None else self._playing.runner
        if runner is not None and runner.stopping:
            return State.stopping
        if self._limiters.pause.on:
            return State.paused
        if runner is None:
            return State.starting
        return State.draining if runner.draining else State.running

    # What is done

    def do(self, request: ControlRequest, who: str) -> ControlAnswer:
        """See `Controlled.do`: whatever changes something, or was refused, stands in run.log."""
        try:
            answer = self._verbs[request.do](request)
        except UserError as error:
            answer = ControlAnswer(False, (str(error),))
        told = neutralise(_words(request))
        outcome = "; ".join(answer.said[:_NAMED]) + (" …" if len(answer.said) > _NAMED else "")
        by = f"by {who} ({'done' if answer.done else 'refused' if answer.refused else 'not done'}: {outcome})"
        self._logs.file_line(f"{head('INFO', time.time(), None)} {neutralise(f'ctl {told} {by}')}")
        if answer.done:
            self.by_hand.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {told}")
            tell(f"{told}: {outcome}", "by hand: ", "yellow")
        return answer

    def _runner(self) -> Runner:
        """The runner of a run that goes on.

        Raises:
            UserError: there is none, or none any more.
        """
        if self._playing is None:
            raise UserError(f"no simulation can begin yet: the run is at {self.doing}")
        runner = self._playing.runner
        if self.closing or runner.stopping or runner.closed:
            raise UserError("the run is ending; what is missing then, resume=DIR runs")
        return runner

    def _pause(self, request: ControlRequest) -> ControlAnswer:
        if self._playing is None and not self.closing:
            self._limiters.pause.begin()
        else:
            self._runner().hold()
        return ControlAnswer(True, ("no simulation begins, no request goes out; those in flight get their answers",))

    def _resume(self, request: ControlRequest) -> ControlAnswer:
        if self._state() not in (State.paused, State.draining):
            return ControlAnswer(True, ("it was neither paused nor draining",))
        if self._playing is None:
            self._limiters.pause.end()
            return ControlAnswer(True, ("it goes on",))
        runner = self._runner()
        runner.go_on()
        self._counters.stopping = runner.draining
        self.ends_sweep = self.ends_sweep and runner.draining
        return ControlAnswer(
            True, ("it goes on, and drains: once more takes that back" if runner.draining else "it goes on",)
        )

    def _drain(self, request: ControlRequest) -> ControlAnswer:
        said = []
        if self.closing and request.every and self._leads_sweep:
            said.append("the simulations are over")
        else:
            runner = self._runner()
            self._counters.stopping = True
            runner.drain()
            said.append(f"nothing further begins; the run ends with the {runner.in_flight} in flight")
        if request.every:
            self.ends_sweep = self._leads_sweep
            said.append(
                "and the sweep ends with it: no further job begins"
                if self._leads_sweep
                else "jobs of the sweep that have not begun are its launcher's: they begin"
            )
        return ControlAnswer(True, tuple(said))

    def _cancel(self, request: ControlRequest) -> ControlAnswer:
        runner = self._runner()
        assert self._playing is not None
        keys = self._found(request)
        taken = set(runner.withdraw(keys))
        for key in taken:
            self._counters.withdrawn(key)
        ended = [key for key in runner.playing if key in keys and self._playing.players.cancel(key, _CANCELLED)]
        if not taken and not ended:
            return ControlAnswer(False, (f"of {request.task} nothing is in flight or queued",))
        said = [f"{key.label}: ended here, as an infrastructure error" for key in ended]
        said += [f"{key.label}: taken out of the queue" for key in keys if key in taken]
        return ControlAnswer(True, tuple(said))

    def _rerun(self, request: ControlRequest) -> ControlAnswer:
        runner = self._runner()
        if runner.draining:
            raise UserError("the run drains: nothing further begins; ctl resume takes that back")
        left, again, said, refused = set(runner.left()), [], [], False
        for key in self._found(request):
            entry = self._store.entries.get(key)
            if key in left:
                told = "in flight or queued already"
            elif key in runner.withdrawn or (entry is not None and not entry.finished):
                again.append(key)
                continue
            elif entry is not None:
                told, refused = f"was scored ({entry.reward:g}), and nothing ever replaces that", True
            else:
                told = "not to be run here"
            if not request.every:
                said.append(f"{key.label}: {told}")
        if not again:
            return ControlAnswer(False, tuple(said) or ("no simulation has ended in an infrastructure error",), refused)
        for key in again:
            entry = self._store.entries.get(key)
            if key in runner.withdrawn:
                self._counters.queued(key)
            elif entry is not None:
                self._counters.runs_again(entry)
        runner.run_next([self._jobs[key] for key in again])
        return ControlAnswer(True, (*(f"{key.label}: runs again, next" for key in again), *said))

    def _set(self, request: ControlRequest) -> ControlAnswer:
        if request.key == "log_level":
            return ControlAnswer(True, (set_level(self._logs, request.value),))
        if request.key == "max_concurrency":
            self._runner()
            assert self._playing is not None
            return ControlAnswer(True, (self._playing.steering.set(concurrency(request.value)),))
        if request.key == "limits.run_timeout_s":
            return ControlAnswer(True, (set_timeout(self._runner(), request.value),))
        raise UserError(
            f"{request.key}: only max_concurrency, log_level and limits.run_timeout_s can be set in a run that goes "
            "on; other keys that may differ take effect with resume=DIR"
        )

    def _found(self, request: ControlRequest) -> Collection[SimulationKey]:
        """The simulations that are meant, in the order of the schedule.

        Raises:
            UserError: none, or those of several tasks.
        """
        if request.every:
            return list(self._jobs)
        return matching_keys(list(self._jobs), request.task or "", request.trial)


def _words(request: ControlRequest) -> str:
    """The request as it was typed."""
    given = [request.do.value, request.task or ""]
    given += [f"{'the sweep' if request.do is Verb.drain else '--all'}"] if request.every else []
    given += [f"--trial {request.trial}"] if request.trial is not None else []
    given += [f"{request.key}={request.value}"] if request.key else []
    return " ".join(filter(None, given))
