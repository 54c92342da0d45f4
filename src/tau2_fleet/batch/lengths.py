"""How long conversations are expected to be: learned from earlier runs, else from what the tasks ask for.

Learned lengths are kept in the cache directory, never in results; `run/attempt.py` reads them before a run,
`run/execution.py` adds to them. They only decide in which order simulations begin and how many of them at once.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.batch.schedule import expected_length
from tau2_fleet.errors import UserError
from tau2_fleet.paths import caches
from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.line import SimulationKey

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task

log = logging.getLogger(__name__)

TaskName = tuple[str, str]
"""Domain and task id."""

_FILE = "lengths.json"
_MOSTLY = 0.8
_REMEMBERED = 20.0
"""Simulations of a task that count at most: what came long ago weighs less and less."""


@dataclass(frozen=True, slots=True)
class ExpectedLengths:
    """What is expected of each task."""

    by_task: Mapping[TaskName, float]
    counted: bool
    """Whether most are calls that earlier runs with this very model counted; else they tell longer from shorter."""


class LearnedLengths:
    """Calls that an agent's model needs for each task, as runs on this machine have shown."""

    def __init__(self, model: str, folder: Path | None = None) -> None:
        """`model`: the agent's, by the name that records have; `folder`: null for the cache directory."""
        self._model = model
        self._path = (caches() if folder is None else folder) / _FILE
        self._new: list[tuple[TaskName, int]] = []

    def of(self, tasks: Mapping[TaskName, Task]) -> ExpectedLengths:
        """The expected length of each task; where nothing is known of it, in proportion to its actions.

        What another model needed counts where this one has not been seen on a task.
        """
        models = self._read()
        known: dict[TaskName, float] = {}
        for _, found in sorted(models.items(), key=lambda entry: entry[0] != self._model):
            for text, (_, calls) in found.items():
                known.setdefault(_task_name(text), calls)
        guesses = {name: expected_length(task) for name, task in tasks.items()}
        seen = [name for name in guesses if name in known]
        guessed = sum(guesses[name] for name in seen)
        scale = sum(known[name] for name in seen) / guessed if guessed else 1.0
        by_task = {name: known.get(name, guess * scale) for name, guess in guesses.items()}
        own = models.get(self._model, {})
        counted = sum(f"{domain}/{task_id}" in own for domain, task_id in guesses)
        return ExpectedLengths(by_task, counted=counted > _MOSTLY * len(guesses))

    def add(self, key: SimulationKey, calls: int) -> None:
        """A simulation has ended as agent and customer wanted, after so many calls of the agent."""
        if calls > 0:
            self._new.append(((key.domain, key.task_id), calls))

    def save(self) -> None:
        """Add what this run has shown to what earlier ones have; a cache that cannot be written is none."""
        if not self._new:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with (self._path.parent / f".{_FILE}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                models = self._read()
                own = models.setdefault(self._model, {})
                for (domain, task_id), calls in self._new:
                    count, mean = own.get(f"{domain}/{task_id}", (0.0, 0.0))
                    count = min(count, _REMEMBERED - 1)
                    own[f"{domain}/{task_id}"] = (count + 1, (mean * count + calls) / (count + 1))
                rounded = {
                    model: {name: [count, round(mean, 2)] for name, (count, mean) in found.items()}
                    for model, found in models.items()
                }
                write_json(self._path, {"v": 1, "models": rounded})
        except (OSError, UserError) as error:
            log.debug("lengths of conversations could not be kept: %s", error)
        self._new.clear()

    def _read(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Model to `domain/task` to (simulations, mean calls); what cannot be read is nothing."""
        try:
            content: Any = json.loads(self._path.read_bytes())
            return {
                str(model): dict(_entries(found))
                for model, found in content["models"].items()
                if isinstance(found, dict)
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _entries(found: Mapping[str, Any]) -> Iterable[tuple[str, tuple[float, float]]]:
    for name, entry in found.items():
        match entry:
            case [int() | float() as count, int() | float() as mean] if count > 0 and 0 < mean < math.inf:
                yield name, (float(count), float(mean))


def _task_name(text: str) -> TaskName:
    domain, _, task_id = text.partition("/")
    return domain, task_id
