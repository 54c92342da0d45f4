"""A run's status in words, for `command.py` and `watching.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from tau2_fleet.control.messages import State, Status
from tau2_fleet.display.console import neutralise
from tau2_fleet.invocation import typed

_STYLES = {
    State.running: "green",
    State.ended: "bold",
    State.paused: "yellow",
    State.draining: "yellow",
    State.stopping: "yellow",
    State.hangs: "bold red",
    State.died: "bold red",
}


def headline(run_dir: Path, found: Status) -> Text:
    """Which run it is and how."""
    where = f" (process {found.pid} on {neutralise(found.host)})" if found.state.live and found.pid else ""
    return Text.assemble(
        f"{shown(run_dir)}: ",
        (found.state.value, _STYLES.get(found.state, "")),
        f"{where}: {neutralise(found.doing)}" if found.doing else where,
        overflow="fold",
    )


def shown(run_dir: Path) -> str:
    """The directory as one would type it here."""
    return neutralise(str(run_dir))


def facts(found: Status) -> Iterator[Text]:
    """What the screen does not say: a line each."""
    if found.max_concurrency is not None:
        how = "auto" if found.auto else "set"
        held = f", {found.held} held back" if found.held else ""
        out = f", {found.withdrawn} taken out" if found.withdrawn else ""
        yield Text(
            f"at most {found.max_concurrency} in flight ({how}), {found.queued} queued{out}; "
            f"requests at the servers: {found.requests}{held}; log_level {neutralise(found.log_level)}",
            "dim",
        )
    for name, gate in found.providers.items():
        limit = "no limit known" if gate.limit is None else f"at most {gate.limit:.0f}"
        yield Text(f"{neutralise(name)}: {gate.in_flight} requests, {gate.waiting} waiting, {limit}", "dim")
    if found.lag_s:
        yield Text(f"the event loop has stood still for {found.lag_s:.0f} s:", "bold red")
        for call in found.stack:
            yield Text(f"  {neutralise(call)}")
    for action in found.by_hand:
        yield Text(f"by hand: {neutralise(action)}", "dim")


def next_step(run_dir: Path, found: Status) -> str | None:
    """What to type next, where that is plain."""
    overall = found.shown.overall
    missing = overall.total > overall.done or overall.errors
    if found.state in (State.died, State.unbegun) or (found.state is State.ended and missing):
        return f"go on:  {typed('run', f'resume={run_dir}')}"
    if found.state is State.ended:
        return f"look:   {typed('show', str(run_dir))}"
    if found.state is State.paused:
        return f"go on:  {typed('ctl', 'resume', str(run_dir))}"
    return None
