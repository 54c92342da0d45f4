"""How a run and its shard processes talk: over pipes, a JSON line each, of a known size what follows it.

`shard_processes.py` is the run's side, `shard_process.py` the process's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from tau2_fleet.llm.endpoints import Endpoint

_ENDPOINT = ("name", "base_url", "model", "api_key", "keeps_alive")
"""What is told of an endpoint, in the order in which one is made."""


class ShardCommand(StrEnum):
    """What the run tells a process."""

    begin = "begin"
    """The first one: all that it must know (`Beginning`)."""
    servers = "servers"
    """Which servers take requests from now on (`Servers`)."""
    run = "run"
    """One simulation."""
    cancel = "cancel"
    """Give one up; it will not be asked for again."""
    finish = "finish"
    """End one here, with a record that says why."""
    state = "state"
    """Whether the run is paused, and its log level."""
    end = "end"


class Word(StrEnum):
    """What a process tells the run."""

    ready = "ready"
    refused = "refused"
    """It cannot begin, and why."""
    record = "record"
    """A simulation is over; its record follows."""
    raised = "raised"
    """A simulation came to an error of this program."""
    events = "events"
    """Lines of `profile.jsonl` follow."""
    prompt = "prompt"
    log = "log"
    unanswered = "unanswered"
    """A server did not answer a request."""
    loads = "loads"
    """How many requests wait at each server, and how many it has answered."""
    over = "over"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a process must know to begin."""

    run_dir: str
    run_id: str
    attempt: int
    names: Mapping[str, str]
    """Role to the name that its servers gave its model, where the configuration has none."""
    pools: tuple[str, ...]
    simulations: int
    """In flight at most, in this process."""
    limit_usd: float | None = None
    """What the run may spend, all its processes together, and where `in_sweep` all jobs of the sweep."""
    in_sweep: bool = False


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that are in the routing."""

    ready: Mapping[int, tuple[str, Endpoint]]
    """The number of one time of being ready to its pool and endpoint."""
    closed: Mapping[str, str]
    """Pools that have no server left, and why."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "ready": [
                [number, pool, *(getattr(endpoint, name) for name in _ENDPOINT)]
                for number, (pool, endpoint) in self.ready.items()
            ],
            "closed": dict(self.closed),
        }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Servers:
        return cls({number: (pool, Endpoint(*of_it)) for number, pool, *of_it in value["ready"]}, value["closed"])


def message(kind: ShardCommand | Word, payload: bytes = b"", **fields: Any) -> bytes:
    """One message: a line, and the payload behind it."""
    return orjson.dumps({"kind": kind.value, "size": len(payload), **fields}, default=str) + b"\n" + payload
