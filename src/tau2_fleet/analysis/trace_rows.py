"""A picture of `trace.json`: the rows that Perfetto shows, simulations above replicas; `analyze` draws it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.plots import TYPE_COLOURS, save
from tau2_fleet.regular import lines_of, open_file

TRACE_FILE = "trace.json"
MOST_ROWS = 30
"""Of each kind; the picture says how many are left out."""
_SIMULATIONS, _REPLICA = "simulations ", "replica "
_TOOL = "tool_call"
_NAMES = {
    "llm_call": "agent",
    "user_sim": "user",
    "expert_call": "expert",
    "evaluator": "judge",
    _TOOL: "tool",
}


@dataclass(slots=True)
class TraceRow:
    """One row of the trace: coloured stretches, in seconds since the trace began."""

    name: str
    slices: list[tuple[str, float, float]] = field(default_factory=list)
    """Type of event, begin, duration."""


def draw_trace(trace: Path, picture: Path) -> Path | None:
    """Draw the first rows of a trace; None when there is nothing to draw."""
    simulations, replicas = trace_rows(trace)
    chosen = simulations[:MOST_ROWS] + replicas[:MOST_ROWS]
    if not any(row.slices for row in chosen):
        return None
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    figure, axis = pyplot.subplots(figsize=(11, 0.19 * len(chosen) + 1.5))
    for place, row in enumerate(chosen):
        for kind in _NAMES:
            spans = [(begin, duration) for one, begin, duration in row.slices if one == kind]
            axis.broken_barh(spans, (place - 0.4, 0.8), color=TYPE_COLOURS[kind], linewidth=0)
    axis.set_yticks(range(len(chosen)), [row.name for row in chosen], fontsize=7)
    axis.set_ylim(len(chosen) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("seconds since the start", loc="left")
    axis.axhline(min(len(simulations), MOST_ROWS) - 0.5, color="#a3a3a3", linewidth=0.8)
    left_out = max(0, len(simulations) - MOST_ROWS) + max(0, len(replicas) - MOST_ROWS)
    axis.set_title("The trace: simulations, then requests at each replica")
    if left_out:
        axis.set_title(f"{left_out:,} more rows in {TRACE_FILE}", loc="right", fontsize=9, fontweight="normal")
    seen = {kind for row in chosen for kind, _, _ in row.slices}
    keys = [Patch(color=TYPE_COLOURS[kind], label=name) for kind, name in _NAMES.items() if kind in seen]
    figure.legend(handles=keys, ncols=len(keys), loc="lower right", fontsize=9)
    return save(figure, picture)


def trace_rows(trace: Path) -> tuple[list[TraceRow], list[TraceRow]]:
    """Rows of simulations and of replicas, in the order in which they began."""
    processes: dict[int, str] = {}
    names: dict[tuple[int, int], str] = {}
    rows: dict[tuple[int, int], TraceRow] = {}
    first: float | None = None
    for event in _events(trace):
        place = (event["pid"], event.get("tid", 0))
        if event["ph"] == "M":
            if event["name"] == "process_name":
                processes[event["pid"]] = str(event["args"]["name"])
            elif event["name"] == "thread_name":
                names[place] = str(event["args"]["name"])
        elif event["ph"] in ("X", "i"):
            first = event["ts"] if first is None else min(first, event["ts"])
            kind = _kind(event) if event["ph"] == "X" else None
            if kind is not None:
                row = rows.setdefault(place, TraceRow(""))
                row.slices.append((kind, event["ts"], event["dur"]))
    for place, row in rows.items():
        row.slices = [(kind, (begin - (first or 0)) / 1e6, length / 1e6) for kind, begin, length in row.slices]
        process = processes.get(place[0], "")
        owner = process.removeprefix(_SIMULATIONS).removeprefix(_REPLICA)
        row.name = f"{owner}/{names.get(place, '')}"[:44] if process.startswith(_SIMULATIONS) else owner
    ordered = sorted(rows.items(), key=lambda item: min(begin for _, begin, _ in item[1].slices))
    return (
        [row for place, row in ordered if processes.get(place[0], "").startswith(_SIMULATIONS)],
        sorted(
            (row for place, row in ordered if processes.get(place[0], "").startswith(_REPLICA)),
            key=lambda row: row.name,
        ),
    )


def _kind(event: dict[str, Any]) -> str | None:
    """Which type's colour a slice has; None for those that others fill."""
    category = event.get("cat")
    if category == "tool":
        return _TOOL
    kind = str(event["name"] if category == "model" else category)
    return "expert_call" if kind.startswith("expert") else kind if kind in _NAMES else None


def _events(trace: Path) -> Iterator[dict[str, Any]]:
    """The events of a trace, one a line; the trace of a killed run lacks its end."""
    with open_file(trace) as file:
        for line in lines_of(file):
            try:
                yield json.loads(line.strip().rstrip(b","))
            except json.JSONDecodeError:
                continue
