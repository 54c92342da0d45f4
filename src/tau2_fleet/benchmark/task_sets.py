"""The tasks of a domain: read from its files, selected by set and id, checked, and kept as they were written.

`Domain` asks for them; a benchmark in a process of its own gives its tasks through `TaskSource` as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.package import Task
from tau2_fleet.benchmark.raw_tasks import unknown_criteria
from tau2_fleet.benchmark.scoring.rules import ScoringRules
from tau2_fleet.errors import UserError
from tau2_fleet.regular import read_given

BASE = "base"
"""The task set that is meant when none is named."""
_NOTHING: Mapping[str, Any] = {}

RawTask = dict[str, Any]
"""A task as its file has it."""


class TaskSource(Protocol):
    """Where the tasks of a domain come from."""

    @property
    def origin(self) -> str:
        """What to call it in a message."""

    def splits(self) -> Mapping[str, Sequence[str]]:
        """The ids of each named task set."""

    def of_set(self, name: str) -> list[RawTask]:
        """The tasks of a named set."""

    def all(self) -> list[RawTask]:
        """All that it has."""


class FileTasks:
    """Tasks of `tasks.json`, in sets as `split_tasks.json` has them."""

    def __init__(self, files: DomainFiles) -> None:
        self._files = files

    @property
    def origin(self) -> str:
        return str(self._files.path("tasks.json"))

    def splits(self) -> Mapping[str, Sequence[str]]:
        path = self._files.path("split_tasks.json")
        if not path.is_file():
            return {BASE: [str(task["id"]) for task in self.all()]}
        return {name: [str(task_id) for task_id in ids] for name, ids in _read_json(path).items()}

    def of_set(self, name: str) -> list[RawTask]:
        wanted = set(self.splits()[name])
        return [raw for raw in self.all() if str(raw["id"]) in wanted]

    def all(self) -> list[RawTask]:
        return read_tasks(self._files.path("tasks.json"))


class TaskSets:
    """The tasks of one domain, each made once for a set."""

    def __init__(self, domain: str, source: TaskSource, rules: ScoringRules) -> None:
        """
        Args:
            domain: its name, for messages.
            rules: say which criteria can be checked.
        """
        self._domain = domain
        self._source = source
        self._rules = rules
        self._loaded: dict[str, list[Task]] = {}
        self._raw: dict[int, RawTask] = {}
        """Tasks as they were written, by the `id` of what was made of them; kept, so that no other has it."""
        self._kept: list[Task] = []

    @cached_property
    def splits(self) -> Mapping[str, Sequence[str]]:
        """The ids of each named task set."""
        return self._source.splits()

    def select(self, task_set: str, ids: Sequence[str] | None, limit: int | None) -> list[Task]:
        """Tasks of a named set or of a JSON file; `ids` keeps these alone, `limit` the first so many of what is left.

        Raises:
            UserError: there is no such set, file or task.
        """
        if task_set not in self._loaded:
            self._loaded[task_set] = self._load(task_set)
        tasks = self._loaded[task_set]
        if ids is not None:
            wanted = {str(task_id) for task_id in ids}
            known = [task.id for task in tasks]
            for task_id in wanted.difference(known):
                meant = meant_name(task_id, known)
                raise UserError(f"domain {self._domain}: the task set {task_set} has no task {task_id!r}{meant}")
            tasks = [task for task in tasks if task.id in wanted]
        return list(tasks if limit is None else tasks[:limit])

    def find(self, ids: Iterable[str]) -> dict[str, Task]:
        """Tasks by their ids, of whatever set; those that are not there are left out."""
        wanted = set(ids)
        # Selected before they are validated: telecom has 2285 tasks, of which the base set takes 114.
        raw_tasks = [raw for raw in self._source.all() if str(raw["id"]) in wanted]
        return {task.id: task for task in self._made(self._source.origin, raw_tasks)}

    def written(self, task: Task) -> Mapping[str, Any]:
        """A task as its file has it; empty for one that is not from here."""
        return self._raw.get(id(task), _NOTHING)

    def _load(self, task_set: str) -> list[Task]:
        if task_set in self.splits:
            return self._made(self._source.origin, self._source.of_set(task_set))
        path = Path(task_set).expanduser()
        if not path.is_file():
            sets = ", ".join(f"{name} ({len(ids)})" for name, ids in self.splits.items())
            meant = meant_name(task_set, self.splits)
            raise UserError(f"domain {self._domain}: no task set or file {task_set!r}{meant}; it has {sets}")
        return self._made(str(path), read_tasks(path))

    def _made(self, origin: str, raw_tasks: list[RawTask]) -> list[Task]:
        """Tasks of the package's class; what their file has beside is kept.

        Raises:
            UserError: one is not of its form, or is judged by what nothing here can check.
        """
        for raw in raw_tasks:
            if unknown := unknown_criteria(raw, self._rules):
                raise UserError(f"{origin}: task {raw['id']} is judged by {unknown}, and nothing here can check that")
        try:
            tasks = [Task.model_validate(raw) for raw in raw_tasks]
        except ValidationError as error:
            raise UserError(f"{origin}: not a task of the benchmark's form: {first_lines(error)}") from error
        self._raw.update((id(task), raw) for task, raw in zip(tasks, raw_tasks, strict=True))
        self._kept += tasks
        return tasks


def read_tasks(path: Path) -> list[RawTask]:
    """The tasks of a JSON file: a list, or an object that has one under `tasks`.

    Raises:
        UserError: it cannot be read, or is nothing of the kind.
    """
    raw = _read_json(path)
    if isinstance(raw, dict):
        raw = raw.get("tasks")
    if not isinstance(raw, list) or not all(isinstance(task, dict) and "id" in task for task in raw):
        raise UserError(f"{path}: not a list of tasks")
    return raw


def meant_name(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not there: the one that it may have been meant for."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]!r}?" if found else ""


def first_lines(error: Exception) -> str:
    """What an error says, without its tail."""
    return " ".join(str(error).splitlines()[:3])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_given(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
