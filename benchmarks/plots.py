"""The plots of `benchmarks/README.md`, one for each benchmark that has something to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

OURS, THEIRS, THIRD, FOURTH = "#2a6f97", "#e07a5f", "#81b29a", "#6d597a"
_GREY = "#5c6770"
_SIZE = (8.4, 3.8)


def draw(rows: Mapping[str, Sequence[Row]], folder: Path) -> dict[str, Path]:
    """Draw what there are rows for; the files by benchmark."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "figure.dpi": 130,
            "font.size": 9.5,
            "axes.edgecolor": "#b8c0c6",
            "axes.labelcolor": _GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.titlecolor": "#26323a",
            "xtick.color": _GREY,
            "ytick.color": _GREY,
            "grid.color": "#e6eaed",
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )
    drawn: dict[str, Path] = {}
    for name, drawing in _DRAWINGS.items():
        if rows.get(name):
            figure = drawing({row.name: row for row in rows[name]})
            drawn[name] = folder / f"{name}.png"
            figure.savefig(drawn[name], bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return drawn


def _batch(rows: Mapping[str, Row]) -> Any:
    """CPU per simulation and peak memory, both runners, concurrency 10."""
    figure, (left, right) = _axes(2)
    domains = ("retail", "airline", "telecom")
    cpu = [rows[f"batch/{domain}/concurrency 10/cpu"] for domain in domains]
    memory = [rows[f"batch/{domain}/concurrency 10/peak memory"] for domain in domains]
    for axes, found, title in ((left, cpu, "CPU per simulation, ms"), (right, memory, "Peak memory, MiB")):
        for index, row in enumerate(found):
            assert row.theirs is not None
            axes.bar(index - 0.19, row.ours, 0.36, color=OURS, label="this program" if not index else None)
            axes.bar(index + 0.19, row.theirs, 0.36, color=THEIRS, label="tau2 package" if not index else None)
            for place, value in ((index - 0.19, row.ours), (index + 0.19, row.theirs)):
                axes.annotate(
                    _short(value),
                    (place, value),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                    color=_GREY,
                )
        axes.set_xticks(range(len(domains)), domains)
        axes.set_title(title)
        axes.grid(axis="y")
    left.set_yscale("log")
    left.set_title("CPU per simulation, ms (logarithmic)")
    left.set_ylim(top=left.get_ylim()[1] * 2.5)
    left.legend(loc="upper right", ncols=2, fontsize=8.5)
    figure.tight_layout()
    return figure


def _parts(rows: Mapping[str, Row]) -> Any:
    """Every part in microseconds, and a turn against the length of the history."""
    figure, (left, right) = _axes(2, widths=(2.1, 1))
    parts = [row for row in rows.values() if not row.name.startswith("parts/a turn")]
    places = range(len(parts))
    height = 0.36
    left.barh([place - height / 2 for place in places], [row.ours for row in parts], height, color=OURS)
    theirs = [(place, row.theirs) for place, row in zip(places, parts, strict=True) if row.theirs is not None]
    left.barh([place + height / 2 for place, _ in theirs], [value for _, value in theirs], height, color=THEIRS)
    for place, row in zip(places, parts, strict=True):
        left.annotate(
            _short(row.ours), (row.ours, place - height / 2), xytext=(3, 0), textcoords="offset points", va="center",
            fontsize=8, color=_GREY,
        )  # fmt: skip
    left.axvline(1000, color="#c9ced2", linestyle="--", linewidth=1)
    left.set_yticks(places, [row.name.removeprefix("parts/") for row in parts])
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_title("µs of CPU: this program (blue), tau2 package (red)")
    left.grid(axis="x")
    by_length = rows["parts/a turn at 200 messages"].detail["us by messages"]
    lengths = [int(length) for length in by_length]
    right.plot(lengths, list(by_length.values()), marker="o", color=OURS)
    right.set_ylim(0, 1.6 * max(by_length.values()))
    right.set_xlabel("messages, the same bytes in all")
    right.set_title("A turn, history to reply, µs")
    right.grid(axis="y")
    figure.tight_layout()
    return figure


def _scale(rows: Mapping[str, Row]) -> Any:
    """Simulations in flight and memory through each run."""
    figure, (left, right) = _axes(2)
    runs = [row for row in rows.values() if "in_flight" in row.detail]
    for row, colour in zip(runs, (OURS, THIRD, THEIRS, FOURTH), strict=False):
        place = row.name.split("/")[1]
        left.plot(*_columns(row.detail["in_flight"]), color=colour, label=f"{place}: {row.ours:.1%} of the ideal")
        right.plot(*_columns(row.detail["memory"]), color=colour)
    left.set_title("Simulations in flight, and throughput")
    right.set_title("Memory of the runner, MiB")
    for axes in (left, right):
        axes.set_xlabel("seconds")
        axes.set_ylim(bottom=0)
        axes.grid()
    left.set_ylim(top=1.35 * left.get_ylim()[1])
    left.legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    return figure


def _long(rows: Mapping[str, Row]) -> Any:
    """CPU and memory by thousand simulations."""
    figure, (left, right) = _axes(2)
    detail = next(row.detail for row in rows.values() if row.detail)
    thousands = range(1, 1 + len(detail["cpu_ms"]))
    left.plot(thousands, detail["cpu_ms"], color=OURS, marker="o", markersize=3)
    right.plot(thousands, detail["memory_mib"], color=THIRD, marker="o", markersize=3)
    left.set_title("CPU per simulation, ms")
    right.set_title("Resident memory, MiB")
    for axes in (left, right):
        axes.set_xlabel("thousand simulations")
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        axes.grid()
    figure.tight_layout()
    return figure


def _busy(rows: Mapping[str, Row]) -> Any:
    """Requests at the agent's servers through the runs: all domains at once, and one after the other."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 3.2))
    found = [row.detail for row in rows.values() if "theirs" in row.detail]
    axes.plot(*_columns(found[0]["ours"]["busy"]), color=OURS, label=_label("sticky, all at once", found[0]["ours"]))
    for detail, colour in zip(found, (THIRD, FOURTH, THEIRS) if len(found) > 2 else (FOURTH, THEIRS), strict=False):
        wide = 1.4 if detail["name"].startswith("one") else 0.9
        shown = _label(detail["name"], detail["theirs"])
        axes.plot(*_columns(detail["theirs"]["busy"]), color=colour, linewidth=wide, label=shown)
    axes.set_title("Requests at the agent's four servers until all tasks are finished")
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.legend(fontsize=8.5)
    figure.tight_layout()
    return figure


def _label(name: str, shown: Mapping[str, Any]) -> str:
    return f"{name}: {shown['seconds']:.1f} s, cache hits {shown['prefix-cache hit rate']:.1%}"


def _requests(rows: Mapping[str, Row]) -> Any:
    """CPU per request by client."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 1.7))
    by_client = [row for row in rows.values() if "/cpu" in row.name and row.theirs is not None]
    bars = [("this program", by_client[0].ours, OURS)]
    bars += [(row.beside, row.theirs, THEIRS) for row in by_client if row.theirs is not None]
    for place, (_, value, colour) in enumerate(bars):
        axes.barh(place, value, 0.6, color=colour)
        axes.annotate(
            f"{value:.2f} ms", (value, place), xytext=(3, 0), textcoords="offset points", va="center", color=_GREY
        )
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.invert_yaxis()
    axes.set_title("CPU per chat request with 16 tools and 20 messages")
    axes.set_xlim(right=1.12 * max(value for _, value, _ in bars))
    axes.grid(axis="x")
    figure.tight_layout()
    return figure


def _axes(count: int, widths: Sequence[float] | None = None) -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots(1, count, figsize=_SIZE, gridspec_kw=None if widths is None else {"width_ratios": widths})


def _columns(series: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [when for when, _ in series], [value for _, value in series]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


_DRAWINGS: Mapping[str, Callable[[Mapping[str, Row]], Any]] = {
    "batch": _batch,
    "parts": _parts,
    "requests": _requests,
    "long": _long,
    "busy": _busy,
    "scale": _scale,
}
