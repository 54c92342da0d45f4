"""The report's plots as SVG text: plain shapes with classes, coloured by the page's style sheet, light and dark."""

from __future__ import annotations

from collections import Counter
from html import escape
from math import ceil

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.evaluation.metrics import Metrics
from tau2_fleet.report.figures import Figures

_WIDTH = 460
_LEFT = 178
_ROW = 26
_BINS = 24
_BESIDE_BAR = 100
"""Room for a bar's figures, up to `100% (99999)`."""


def domains(metrics: dict[str, Metrics]) -> str:
    """pass^1 of each domain with its interval, on one axis from 0 to 1."""
    shown = [(name, one) for name, one in metrics.items() if name != "overall" or len(metrics) > 2]
    height = _ROW * len(shown) + 34
    parts = [_axis(height - 22)]
    for index, (name, one) in enumerate(shown):
        y = 8 + _ROW * index + _ROW // 2
        estimate = one.pass_hat.get(1) or one.average_reward
        parts.append(_label(name, y))
        if estimate.low is not None and estimate.high is not None:
            parts.append(f'<line class="interval" x1="{_x(estimate.low)}" x2="{_x(estimate.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="point" cx="{_x(estimate.value)}" cy="{y}" r="5"/>')
        parts.append(f'<text class="value" x="{_WIDTH - 4}" y="{y + 4}" text-anchor="end">{estimate.value:.3f}</text>')
    return _svg("pass^1 by domain with 95% intervals", height, parts)


def causes(shares: list[CauseShare]) -> str:
    """What each cause took of the lost reward."""
    height = _ROW * len(shares) + 12
    parts = []
    for index, share in enumerate(shares):
        y = 6 + _ROW * index
        length = (_WIDTH - _LEFT - _BESIDE_BAR) * share.share
        parts.append(_label(share.cause.words, y + _ROW // 2))
        parts.append(
            f'<rect class="bar cause-{share.cause}" x="{_LEFT}" y="{y + 4}" width="{length:.1f}" height="18"/>'
        )
        parts.append(
            f'<text class="value" x="{_LEFT + length + 6:.1f}" y="{y + 17}">'
            f"{share.share:.0%} ({share.simulations})</text>"
        )
    return _svg("reward lost by primary cause: share, and simulations", height, parts)


def lengths(figures: Figures) -> str:
    """How long conversations are, passed above the axis and failed below it."""
    longest = max((max(counts, default=0) for counts in figures.lengths.values()), default=0)
    step = max(1, ceil((longest + 1) / _BINS))
    bins = {passed: _binned(counts, step) for passed, counts in figures.lengths.items()}
    most = max((max(counts.values(), default=0) for counts in bins.values()), default=0) or 1
    width = (_WIDTH - 60) / _BINS
    parts = ['<line class="axis" x1="50" x2="455" y1="80" y2="80"/>']
    for passed, counts in bins.items():
        for number, count in counts.items():
            tall = 66 * count / most
            y = 80 - tall if passed else 80
            kind = "passed" if passed else "failed"
            parts.append(
                f'<rect class="{kind}" x="{50 + number * width:.1f}" y="{y:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{tall:.1f}"><title>{number * step} to {number * step + step - 1} messages: {count} {kind}'
                "</title></rect>"
            )
    parts.append('<text class="label" x="44" y="24" text-anchor="end">passed</text>')
    parts.append('<text class="label" x="44" y="142" text-anchor="end">failed</text>')
    for share in (0.0, 0.5, 1.0):
        place = 50 + share * (_WIDTH - 60)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(
            f'<text class="label" x="{place:.0f}" y="164" text-anchor="{anchor}">{round(share * _BINS * step)}</text>'
        )
    return _svg("messages of a conversation, by outcome", 170, parts)


def time_split(figures: Figures) -> str:
    """Where the simulations' summed time went."""
    total = sum(figures.seconds.values()) or 1.0
    parts, x = [], 10.0
    for index, (name, seconds) in enumerate(figures.seconds.items()):
        length = (_WIDTH - 20) * seconds / total
        parts.append(
            f'<rect class="series-{index}" x="{x:.1f}" y="8" width="{max(length, 0):.1f}" height="26">'
            f"<title>{escape(name)}: {seconds:,.0f} s</title></rect>"
        )
        parts.append(f'<rect class="series-{index}" x="{12 + index * 112}" y="46" width="10" height="10"/>')
        parts.append(
            f'<text class="label" x="{26 + index * 112}" y="55">{escape(name)}</text>'
            f'<text class="value" x="{26 + index * 112}" y="70">{seconds / total:.0%}</text>'
        )
        x += length
    return _svg("where the simulations' summed time went", 78, parts)


def _binned(counts: Counter[int], step: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for length, count in counts.items():
        found[min(length // step, _BINS - 1)] += count
    return found


def _x(value: float) -> str:
    return f"{_LEFT + (_WIDTH - _LEFT - 60) * min(max(value, 0.0), 1.0):.1f}"


def _axis(bottom: int) -> str:
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="label" x="{_x(tick)}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    return "".join(parts)


def _label(text: str, y: int) -> str:
    return f'<text class="label" x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(text)}</text>'


def _svg(title: str, height: int, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )
