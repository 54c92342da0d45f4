"""The pictures of `tau2-fleet analyze`: latency distributions, the run along its time axis, where the time went."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.analysis.profile_reader import PARTS, Profile
from tau2_fleet.analysis.series import Series
from tau2_fleet.analysis.tables import duration
from tau2_fleet.analysis.timeline import Timeline
from tau2_fleet.record.atomic import replaced
from tau2_fleet.telemetry.quantiles import quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TYPE_COLOURS = {
    "llm_call": "#2563eb",
    "user_sim": "#0d9488",
    "expert_call": "#d97706",
    "evaluator": "#7c3aed",
    "tool_call": "#64748b",
    "step_complete": "#a3a3a3",
    "simulation": "#171717",
}
PART_COLOURS = {
    "agent": "#2563eb",
    "user": "#0d9488",
    "expert": "#d97706",
    "tool": "#64748b",
    "judge": "#7c3aed",
    "queue": "#dc2626",
    "connect": "#0891b2",
    "own": "#d4d4d4",
}
_NAMES = {
    "llm_call": "agent calls",
    "user_sim": "user calls",
    "expert_call": "expert calls",
    "evaluator": "judge calls",
    "tool_call": "tool calls",
    "step_complete": "steps",
    "simulation": "simulations",
}
_REPLICA_COLOURS = ("#2563eb", "#d97706", "#0d9488", "#dc2626", "#7c3aed", "#64748b", "#db2777", "#65a30d")
_GREY = "#525252"
_BINS = 50
"""At most."""

_SMALLEST_MS = 1e-3
_CURVE_POINTS = 500


def draw_all(profile: Profile, directory: Path) -> list[Path]:
    """Write every picture there is something to show for; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#a3a3a3",
            "axes.labelcolor": _GREY,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": "#e5e5e5",
            "grid.linewidth": 0.8,
            "xtick.color": _GREY,
            "ytick.color": _GREY,
            "legend.frameon": False,
            "figure.dpi": 130,
            "savefig.facecolor": "white",
        }
    )
    series = {name: profile.by_type[name] for name in TYPE_COLOURS if name in profile.by_type}
    paths = []
    if series:
        paths.append(_distributions(series, directory / "latency_distributions.png"))
        paths.append(_cdfs(series, directory / "latency_cdf.png"))
    if profile.split_ms:
        paths.append(_split(profile, directory / "time_split.png"))
    for index, (run, timeline) in enumerate(profile.timelines.items()):
        name = "timeline.png" if len(profile.timelines) == 1 else f"timeline_{index:02d}.png"
        paths.append(_timeline(run, timeline, directory / name))
    return paths


def _distributions(series: dict[str, Series], path: Path) -> Path:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    columns = min(len(series), 3)
    rows = math.ceil(len(series) / columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 2.7 * rows + 0.4), squeeze=False)
    axes = [one for line in grid for one in line]
    for axis, (name, one) in zip(axes, series.items(), strict=False):
        ordered = sorted(max(value, _SMALLEST_MS) for value in one.durations_ms)
        low, high = math.log10(ordered[0]), math.log10(ordered[-1])
        if high - low < 0.2:
            low, high = low - 0.1, high + 0.1
        bins = min(max(2 * math.isqrt(len(ordered)), 8), _BINS)
        edges = [10 ** (low + (high - low) * index / bins) for index in range(bins + 1)]
        axis.hist(ordered, bins=edges, color=TYPE_COLOURS[name], alpha=0.85, linewidth=0)
        _logarithmic_time(axis)
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axis.set_title(f"{_NAMES[name]}  ({len(ordered):,})")
        half, most = quantile(ordered, 0.5), quantile(ordered, 0.95)
        axis.axvline(half, color="#171717", linewidth=1.1)
        axis.axvline(most, color="#171717", linewidth=1.1, linestyle="--")
        axis.set_title(f"p50 {duration(half)},  p95 {duration(most)}", loc="right", fontsize=9, fontweight="normal")
    for axis in axes[len(series) :]:
        axis.set_visible(False)
    figure.suptitle("How long things took", x=0.01, ha="left", fontsize=13, fontweight="bold")
    return save(figure, path)


def _cdfs(series: dict[str, Series], path: Path) -> Path:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8.4, 4.6))
    for name, one in series.items():
        ordered = sorted(max(value, _SMALLEST_MS) for value in one.durations_ms)
        shares = [index / _CURVE_POINTS for index in range(_CURVE_POINTS + 1)]
        values = [quantile(ordered, share) for share in shares]
        style = ":" if name in ("step_complete", "simulation") else "-"
        axis.plot(values, shares, color=TYPE_COLOURS[name], linestyle=style, linewidth=2, label=_NAMES[name])
    _logarithmic_time(axis)
    axis.set_ylim(0, 1.01)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_ylabel("took at most this long")
    for share in (0.5, 0.95):
        axis.axhline(share, color="#a3a3a3", linewidth=0.8, linestyle="--")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.set_title("Latency, cumulative", fontsize=13)
    return save(figure, path)


def _split(profile: Profile, path: Path) -> Path:
    from matplotlib import pyplot

    domains = list(profile.split_ms.items())
    figure, axis = pyplot.subplots(figsize=(9, 1.5 + 0.62 * len(domains)))
    for height, (_, parts) in enumerate(domains):
        total = sum(parts.values()) or 1.0
        left = 0.0
        for part in PARTS:
            share = max(parts[part], 0.0) / total
            axis.barh(
                height, share, left=left, color=PART_COLOURS[part], height=0.62, label=part if height == 0 else None
            )
            if share >= 0.045:
                colour = "#171717" if part == "own" else "white"
                axis.text(left + share / 2, height, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=9)
            left += share
    axis.set_yticks(
        range(len(domains)), [f"{name}\n{duration(sum(parts.values()))}" for name, parts in domains], fontsize=9
    )
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.grid(False)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_title("Where the time of the simulations went", fontsize=13, pad=26)
    axis.legend(
        ncols=len(PARTS), loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=9, handlelength=1, columnspacing=1.2
    )
    return save(figure, path)


def _timeline(run: str, timeline: Timeline, path: Path) -> Path:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    panels = 3 if timeline.kv_use else 2
    figure, axes = pyplot.subplots(panels, 1, figsize=(10, 1.9 * panels + 0.9), sharex=True)
    minutes = timeline.width_s * len(timeline.times_s()) > 600
    scale = 60.0 if minutes else 1.0
    times = [time / scale for time in timeline.times_s()]
    running, in_flight = timeline.simulations.values(), timeline.calls.values()
    axes[0].fill_between(times, running, color="#2563eb", alpha=0.18, linewidth=0)
    axes[0].plot(times, running, color="#2563eb", linewidth=1.6, label="simulations")
    axes[0].plot(times, in_flight, color="#d97706", linewidth=1.4, linestyle="--", label="model calls")
    if timeline.limits:
        # No higher than the run came to: a limit that nothing reaches says nothing.
        most = max(running)
        steps = [(time / scale, min(limit, 1.1 * most)) for time, limit in timeline.limits]
        steps.append((times[-1], steps[-1][1]))
        axes[0].step(*zip(*steps, strict=True), where="post", color="#dc2626", linewidth=1.0, label="limit (auto)")
    axes[0].set_title("at once")
    axes[0].yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes[0].legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0), fontsize=9)
    rate = timeline.token_rate.values()
    axes[1].fill_between(times, rate, color="#0d9488", alpha=0.25, linewidth=0)
    axes[1].plot(times, rate, color="#0d9488", linewidth=1.4)
    axes[1].set_title("output tokens per second")
    if timeline.kv_use:
        for index, (replica, samples) in enumerate(sorted(timeline.kv_use.items())):
            colour = _REPLICA_COLOURS[index % len(_REPLICA_COLOURS)]
            axes[2].plot(
                [time / scale for time, _ in samples], [use for _, use in samples], color=colour, linewidth=1.4,
                label=replica if index < len(_REPLICA_COLOURS) else None,
            )  # fmt: skip
        highest = max(use for samples in timeline.kv_use.values() for _, use in samples)
        axes[2].set_ylim(0, min(max(highest * 1.15, 0.1), 1.0))
        axes[2].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes[2].set_title("KV cache in use")
        columns = min(len(timeline.kv_use), len(_REPLICA_COLOURS))
        axes[2].legend(ncols=columns, loc="lower right", bbox_to_anchor=(1, 1.0), fontsize=9)
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
    axes[-1].set_xlim(0, times[-1])
    axes[-1].set_xlabel("minutes since the start" if minutes else "seconds since the start")
    figure.suptitle(f"The run in time: {run}", x=0.01, ha="left", fontsize=13, fontweight="bold")
    return save(figure, path)


def _logarithmic_time(axis: Axes) -> None:
    from matplotlib.ticker import LogLocator

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    # A decade's powers of ten alone would leave a narrow axis with one number or none.
    steps = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.xaxis.set_major_formatter(lambda value, _: _tick(value))
    axis.xaxis.set_minor_formatter(lambda value, _: "")


def _tick(milliseconds: float) -> str:
    """`0.1 ms`, `10 ms`, `1 s`, `17 min`: short enough for an axis."""
    for limit, unit, size in ((1e3, "ms", 1.0), (1e6, "s", 1e3), (1e7, "min", 6e4)):
        if milliseconds < limit:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds / 3.6e6:.3g} h"


def save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    with replaced(path) as file:
        figure.savefig(file, format=path.suffix[1:])
    pyplot.close(figure)
    return path
