"""Answers the runner's requests, a line of JSON each, one after the other, until the runner closes the pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import contents, pipes
from .environments import Call, RegistryDomain, ReplayRules, replay, respond
from .held_calls import Held
from .loading import UnusableCode, describe, load_registry
from .scoring import GoldReplay, final_state, task_of

_MOST_GOLD = 5_000


class Unopened(Exception):
    """An environment of an earlier process, or of none."""


class RegistryService:
    """One registry and the environments that are open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: tuple[Any, list[str]] | UnusableCode | None = None
        self._domains: dict[str, RegistryDomain] = {}
        self._environments: dict[int, Any] = {}
        self._gold: dict[str, GoldReplay] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; a failure is one, too."""
        try:
            for number in request.get("closed", ()):
                self._environments.pop(number, None)
            ask: Callable[..., Any] = getattr(self, f"do_{request['do']}")
            return {"id": request["id"], "is": ask(**request.get("with", {}))}
        except UnusableCode as error:
            return {"id": request["id"], "unusable": str(error)}
        except Unopened:
            return {"id": request["id"], "unopened": "no environment of this number is open"}
        except Held as error:
            return {"id": request["id"], "held": str(error)}
        except (Exception, SystemExit) as error:
            return {"id": request["id"], "failed": describe(error, self.root)}

    def do_describe(self) -> Any:
        return contents.describe(*self._load())

    def _load(self) -> tuple[Any, list[str]]:
        """The registry and its stand-ins, imported once."""
        if self._loaded is None:
            try:
                self._loaded = load_registry(self.root)
            except UnusableCode as error:
                self._loaded = error
        if isinstance(self._loaded, UnusableCode):
            raise self._loaded
        return self._loaded

    @property
    def _registry(self) -> Any:
        return self._load()[0]

    def do_domain(self, name: str, options: dict[str, Any]) -> Any:
        try:
            return contents.domain_contents(self._domain(name, options))
        except (Exception, SystemExit) as error:
            if isinstance(error, UnusableCode):
                raise
            raise UnusableCode(f"domain {name} cannot be made: {describe(error, self.root)}") from error

    def do_parameters(self, name: str) -> Any:
        return sorted(self._domain(name, {}).parameters)

    def do_splits(self, name: str) -> Any:
        return contents.splits(self._registry, name)

    def do_tasks(self, name: str, split: str | None) -> Any:
        return contents.tasks(self._registry, name, split)

    def do_task(self, name: str, options: dict[str, Any], task: dict[str, Any], solo: bool) -> Any:
        made = task_of(task)
        return contents.task_contents(self._domain(name, options).new(made, solo=solo), made)

    def do_open(
        self,
        number: int,
        name: str,
        options: dict[str, Any],
        task: dict[str, Any],
        solo: bool,
        history: list[dict[str, Any]],
        calls: list[dict[str, Any]],
        rules: dict[str, bool],
    ) -> Any:
        """Where a conversation begins, or stands after these calls."""
        environment = self._domain(name, options).begun(task_of(task), solo=solo)
        again = [Call.of(call) for call in (*history, *calls)]
        different = replay(environment, again, ReplayRules(**rules))
        if not different:
            self._environments[number] = environment
        return different

    def do_count_open(self) -> Any:
        return len(self._environments)

    def do_call(self, number: int, sync: bool, call: dict[str, Any]) -> Any:
        environment = self._open(number)
        if sync:
            environment.sync_tools()
        answer, error = respond(environment, Call.of(call))
        return {"content": answer, "error": error}

    def do_score(
        self,
        number: int | None,
        name: str,
        options: dict[str, Any],
        task: dict[str, Any],
        solo: bool,
        history: list[dict[str, Any]],
        calls: list[dict[str, Any]],
        rules: dict[str, bool],
    ) -> Any:
        """The final state of a replay; of the environment `number` itself where a replay gives other answers."""
        domain, made, chosen = self._domain(name, options), task_of(task), ReplayRules(**rules)
        identity = json.dumps([name, options, task, rules], sort_keys=True)
        if identity not in self._gold:
            if len(self._gold) >= _MOST_GOLD:
                self._gold.clear()
            self._gold[identity] = GoldReplay(domain, made, [Call.of(call) for call in history], chosen)
        environment = domain.begun(made, solo=solo)
        different = replay(environment, [Call.of(call) for call in calls], chosen)
        if different and chosen.strict:
            if number is None:
                return {"different": different}
            environment = self._open(number)
            environment.sync_tools()
        return {"different": different, **final_state(self._gold[identity], environment)}

    def _open(self, number: int) -> Any:
        if number not in self._environments:
            raise Unopened
        return self._environments[number]

    def _domain(self, name: str, options: dict[str, Any]) -> RegistryDomain:
        identity = json.dumps([name, options], sort_keys=True)
        if identity not in self._domains:
            if name not in self._registry.get_domains():
                raise UnusableCode(
                    f"no domain {name!r} in the registry; it has {', '.join(self._registry.get_domains())}"
                )
            self._domains[identity] = RegistryDomain(name, self._registry.get_env_constructor(name), options)
        return self._domains[identity]


def main() -> None:
    """The whole program; its argument is the folder that holds the package `tau2`."""
    requests, answers = pipes.take()
    pipes.end_with_runner(requests)
    service = RegistryService(Path(sys.argv[1]))
    for line in requests:
        answers.write(json.dumps(service.answer(json.loads(line))).encode() + b"\n")
        answers.flush()
