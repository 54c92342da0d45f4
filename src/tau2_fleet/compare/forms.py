"""The forms of a comparison: terminal, Markdown, one HTML file in the report's style, JSON, JUnit for a CI."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tau2_fleet.compare.comparison import Comparison
from tau2_fleet.compare.difference_rows import DifferenceRow
from tau2_fleet.compare.document import Document, TableSection
from tau2_fleet.compare.gate import Decision, GateVerdict, points
from tau2_fleet.compare.sides import ComparedSide
from tau2_fleet.display.console import neutralise
from tau2_fleet.display.formats import TableFormat, table_text
from tau2_fleet.evaluation.paired import Interval

_SHOWN = 10
"""Rows of a table in the terminal."""
_LONGEST = 72
"""Characters of a cell there."""


def show_comparison(shown: Document, console: Console) -> None:
    """Print it; of long tables the first rows."""
    console.print(Text(neutralise(shown.title), "bold"))
    for sentence in shown.lead:
        console.print(neutralise(sentence), markup=False)
    for section in shown.sections:
        console.print()
        console.print(_table(section))
    console.print()
    for note in shown.notes:
        console.print(f"note: {neutralise(note)}", markup=False)
    console.print(shown.methods, markup=False)


def _table(section: TableSection) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(section.columns):
        table.add_column(column, justify="left" if index < section.words else "right", no_wrap=True, header_style="dim")
    for row in section.rows[:_SHOWN]:
        table.add_row(*(Text(_short(cell.text), f"link {cell.href}" if cell.href else "") for cell in row))
    left = len(section.rows) - _SHOWN
    note = " ".join(filter(None, (section.note, f"and {left} more: -o FILE has them" if left > 0 else "")))
    if note:
        table.caption, table.caption_justify = Text(note), "left"
    return table


def _short(text: str) -> str:
    """In the terminal: ids of tasks reach 200 characters, and are told apart by beginning and end."""
    plain = neutralise(text)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 21]}…{plain[-20:]}"


def markdown(documents: Sequence[Document]) -> str:
    """Headings, sentences and tables."""
    lines: list[str] = []
    for shown in documents:
        lines += [f"# {_markdown(shown.title)}", ""]
        for sentence in shown.lead:
            lines += [_markdown(sentence), ""]
        for section in shown.sections:
            cells = [[_markdown(cell.text, cell.href) for cell in row] for row in section.rows]
            lines += [f"## {section.title}", "", table_text(section.columns, cells, TableFormat.MARKDOWN), ""]
            lines += [section.note, ""] if section.note else []
        lines += [f"- {_markdown(note)}" for note in shown.notes]
        lines += ["", shown.methods, ""]
    return "\n".join(lines)


def _markdown(text: str, href: str | None = None) -> str:
    """Text in which no tag is one."""
    plain = neutralise(text).replace("<", "&lt;")
    return plain if href is None else f"[{plain}]({href})"


def html(documents: Sequence[Document]) -> str:
    """One page that asks no network address."""
    from tau2_fleet.report.templating import environment, policy_digest, template_text

    style = template_text("report.css")
    page: str = (
        environment()
        .get_template("compare.html.j2")
        .render(
            documents=[{"shown": shown, "chart": _chart(shown.chart)} for shown in documents],
            style=style,
            style_hash=policy_digest(style),
        )
    )
    return page


_WIDTH, _LEFT, _ROW = 620, 178, 26


def _chart(rows: Sequence[DifferenceRow]) -> str:
    """Differences with their intervals on one axis around zero, as SVG text."""
    shown = [row for row in rows if row.interval is not None]
    if not shown:
        return ""
    most = max(abs(end) for row in shown if row.interval for end in (row.interval.low, row.interval.high))
    step = _round_step(100 * max(most, 0.01) / 2) / 100
    most = 2 * step
    height = _ROW * len(shown) + 34

    def x(value: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - 90) * (value / most + 1) / 2:.1f}"

    parts = []
    for tick in (-most, -step, 0.0, step, most):
        parts.append(
            f'<line class="{"axis" if tick == 0 else "grid"}" x1="{x(tick)}" x2="{x(tick)}" y1="4" y2="{height - 22}"/>'
        )
        label = f"{100 * tick:+g}" if tick else "0"
        parts.append(f'<text class="label" x="{x(tick)}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for index, row in enumerate(shown):
        y = 8 + _ROW * index + _ROW // 2
        assert row.interval is not None
        parts += [
            f'<text class="label" x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>',
            f'<line class="interval" x1="{x(row.interval.low)}" x2="{x(row.interval.high)}" y1="{y}" y2="{y}"/>',
            f'<circle class="point" cx="{x(row.difference)}" cy="{y}" r="5"/>',
            f'<text class="value" x="{_WIDTH - 4}" y="{y + 4}" text-anchor="end">{points(row.difference)}</text>',
        ]
    title = "difference of pass^1 in percentage points, with 95% intervals"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}"><title>{title}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _round_step(least: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    scale = 10.0 ** math.floor(math.log10(least))
    return next(one * scale for one in (1, 2, 5, 10) if one * scale >= least * (1 - 1e-9))


def as_dict(comparison: Comparison, decisions: Sequence[Decision] = ()) -> dict[str, Any]:
    """Ready for JSON; names that end in `_pp` are percentage points."""
    infrastructure = comparison.infrastructure
    return {
        "baseline": _side(comparison.baseline),
        "candidate": _side(comparison.candidate),
        "tasks": len(comparison.tasks),
        "overall": _row(comparison.overall),
        "one_sided_95_pp": _ends(comparison.one_sided),
        "mean_of_domains": None if comparison.mean_of_domains is None else _row(comparison.mean_of_domains),
        "domains": {row.name: _row(row) for row in comparison.domains},
        "pass_k": {row.name: _row(row) for row in comparison.pass_k},
        "infrastructure": {
            "failures": {"baseline": infrastructure.failures[0], "candidate": infrastructure.failures[1]},
            "excluded": None if infrastructure.excluded is None else _row(infrastructure.excluded),
            "tasks_with_fewer_trials": list(infrastructure.thinned),
            "tasks_left_out": list(infrastructure.emptied),
            "bounds_pp": _ends(infrastructure.bounds),
        },
        "without_customer": _without_customer(comparison),
        "better": [_flip(flip) for flip in comparison.better],
        "worse": [_flip(flip) for flip in comparison.worse],
        "causes": {change.name: _change(change) for change in comparison.causes},
        "figures": {change.name: _change(change) for change in comparison.figures},
        "effects_variance": comparison.effects,
        "gate": [_decision(decision) for decision in decisions],
        "notes": list(comparison.notes),
    }


def _without_customer(comparison: Comparison) -> dict[str, Any] | None:
    found = comparison.without_customer
    if found is None:
        return None
    return {
        "left_out": {"baseline": found.left_out[0], "candidate": found.left_out[1]},
        "difference": None if found.row is None else _row(found.row),
        "tasks_left_out": list(found.emptied),
    }


def _side(side: ComparedSide) -> dict[str, Any]:
    return {
        "model": side.label,
        "runs": [str(source.path) for source in side.sources],
        "tasks": len(side.trials),
        "simulations": side.simulations,
        "benchmark": side.sources[0].benchmark,
    }


def _row(row: DifferenceRow) -> dict[str, Any]:
    return {
        "tasks": row.tasks,
        "baseline": asdict(row.baseline),
        "candidate": asdict(row.candidate),
        "difference_pp": 100 * row.difference,
        "interval_pp": _ends(row.interval),
        "interval_level": 1 - row.level,
        "interval_these_tasks_pp": _ends(row.these_tasks),
        "p": row.p,
        "test": row.test,
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [100 * interval.low, 100 * interval.high]


def _flip(flip: Any) -> dict[str, Any]:
    return {"difference_pp": 100 * flip.difference, **asdict(flip)}


def _change(change: Any) -> dict[str, Any]:
    interval = change.interval
    return {
        "baseline": change.baseline,
        "candidate": change.candidate,
        "difference": change.difference,
        "interval": None if interval is None else [interval.low, interval.high],
        "p": change.p,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "name": decision.name,
        "margin_pp": 100 * decision.margin,
        "difference_pp": 100 * decision.difference,
        "one_sided_95_pp": _ends(decision.bounds),
        "verdict": str(decision.verdict),
        "reason": decision.reason,
    }


def junit(compared: Mapping[str, tuple[Comparison, Sequence[Decision]]]) -> bytes:
    """JUnit's XML: a case for each margin; without a gate one that tells the difference. Undecided is an error."""
    root = ElementTree.Element("testsuites")
    for name, (comparison, decisions) in compared.items():
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=neutralise(f"tau2-fleet compare {name}"),
            tests=str(max(len(decisions), 1)),
            failures=str(sum(one.verdict is GateVerdict.FAILED for one in decisions)),
            errors=str(sum(one.verdict is GateVerdict.UNDECIDED for one in decisions)),
        )
        for decision in decisions:
            case = ElementTree.SubElement(suite, "testcase", classname="compare", name=neutralise(decision.name))
            if decision.verdict is GateVerdict.PASSED:
                ElementTree.SubElement(case, "system-out").text = decision.line
            else:
                kind = "failure" if decision.verdict is GateVerdict.FAILED else "error"
                ElementTree.SubElement(case, kind, type=str(decision.verdict), message=decision.line)
        if not decisions:
            case = ElementTree.SubElement(suite, "testcase", classname="compare", name="overall")
            ElementTree.SubElement(case, "system-out").text = f"{points(comparison.overall.difference)}, no gate"
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def file_bytes(
    path: Path, documents: Sequence[Document], compared: Mapping[str, tuple[Comparison, Sequence[Decision]]]
) -> bytes:
    """What a file of this ending holds; `FORMS` are the endings."""
    import json

    match path.suffix.lower():
        case ".html":
            return bytes(html(documents).encode("utf-8", "backslashreplace"))
        case ".md":
            return markdown(documents).encode("utf-8", "backslashreplace")
        case ".json":
            found = [as_dict(*one) for one in compared.values()]
            value: Any = found[0] if len(found) == 1 else {"comparisons": dict(zip(compared, found, strict=True))}
            value = next((one.figures for one in documents if one.figures is not None), value)
            return json.dumps(value, indent=2, ensure_ascii=True, default=str).encode() + b"\n"
        case _:
            return junit(compared)


FORMS = (".html", ".md", ".json", ".xml")
