"""Agents over MCP: what the door costs us for each simulation, and 200 of them at once with a client process each.

The client (`seat_client.py`) asks the model by the proxy and calls the tools by MCP, and so costs us twice the requests
of one that brings its own model. Beside it the default agent, which plays the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.whole_run import WholeRun, play

_CPU_MS = 30.0
_CLIENT = Path(__file__).with_name("seat_client.py")
_AT_ONCE = 200


def rows(*, quick: bool) -> list[Row]:
    """CPU of the runner per simulation."""
    count = 50 if quick else _AT_ONCE
    default = _run(count)
    client = _run(count, "agent/scaffold=mcp", f"agent.scaffold.command='{sys.executable} -E -S {_CLIENT}'")
    return [
        Row(
            f"seats/{count} at once/cpu of ours",
            1000 * client.cpu_s / count,
            1000 * default.cpu_s / count,
            "ms/simulation",
            "the default agent",
            limit=_CPU_MS,
            detail={"simulations": count, "requests of models": client.requests, "clients at once": count},
        ),
    ]


def _run(count: int, *overrides: str) -> WholeRun:
    run = play(
        "experiment=simulated",
        "domain=retail",
        f"num_tasks={count // 2}",
        "num_trials=2",
        f"max_concurrency={count}",
        "report=false",
        *overrides,
    )
    if run.finished != count:
        raise AssertionError(f"{count - run.finished} of {count} simulations did not finish")
    return run
