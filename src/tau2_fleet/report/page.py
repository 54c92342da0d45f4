"""Makes the report: streams records into rows and compressed chunks of conversations, then fills the template.

Up to `FOLDER_BEYOND` simulations it is one HTML file that holds everything; beyond, a folder with an index, further
table pages and data that the index loads with script tags. Nothing in it asks any network address.
"""

from __future__ import annotations

import base64
import gzip
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.analysis.causes import SPOILED
from tau2_fleet.analysis.names import distinct_names
from tau2_fleet.analysis.reviews import Review, read_reviews, read_scores
from tau2_fleet.analysis.rows import Row, row_of
from tau2_fleet.errors import UserError, writing
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.overview import Overview, overviews, read_record
from tau2_fleet.record.task_texts import TaskTexts
from tau2_fleet.report import charts, sentences
from tau2_fleet.report.conversations import conversation_of
from tau2_fleet.report.figures import Figures
from tau2_fleet.report.run_data import RunData, read_run
from tau2_fleet.report.templating import environment, policy_digest, template_text
from tau2_fleet.telemetry.secrets import redact, redactor

FOLDER_BEYOND = 2000
"""Simulations from which the report is a folder in place of one file."""
_CHUNK_BYTES = 2**20
"""Of conversations before compression; the page unpacks them one after another."""
_PAGE_ROWS = 1000
_SHOWN_IN_ROW = (
    "id", "trial", "reward", "termination_reason", "cause", "causes", "detail", "messages", "duration_s",
    "input_tokens", "output_tokens", "cost_usd", "replies", "tool_errors", "expert_calls", "domain",
)  # fmt: skip

_SIDE_BY_SIDE = ("simulations", "infrastructure", "reward", "pass^1", "cost", "mean time")
"""What the table of several runs says of each."""


@dataclass(slots=True)
class RunPart:
    """One run of a report, ready for the template."""

    run: RunData
    figures: Figures = field(default_factory=Figures)
    reviews: dict[SimulationKey, Review] = field(default_factory=dict)
    """Those of simulations that still have the reward that was reviewed."""

    def for_page(self) -> dict[str, Any]:
        """What the template shows of it."""
        metrics = self.figures.metrics()
        shares = self.figures.causes.shares()
        table = sentences.metrics_table(metrics)
        return {
            "name": self.run.name,
            "directory": self.run.directory.name,
            "headline": sentences.headline(self.run, self.figures),
            "inventory": sentences.inventory(self.run, self.figures),
            "losses": sentences.losses(shares),
            "reviewed": sentences.reviewed(read_scores(self.run.directory), len(self.reviews), self.figures.total),
            "methods": sentences.methods(self.run, self.figures),
            "table": table,
            "overall": {name: table[-1].get(name, "") if table else "" for name in _SIDE_BY_SIDE},
            "shares": [self._share(share) for share in shares],
            "departures": [(key, *map(_shown, values)) for key, values in self.run.departures.items()],
            "reference": self.run.reference,
            "conditions": [
                (name, count, name.partition(".")[2] in SPOILED)
                for name, count in self.figures.conditions.most_common()
            ],
            "infrastructure": self.figures.infrastructure.most_common(10),
            "domains_chart": charts.domains(metrics) if metrics else "",
            "causes_chart": charts.causes(shares) if shares else "",
            "lengths_chart": charts.lengths(self.figures),
            "time_chart": charts.time_split(self.figures),
            "versions": self.run.summary.get("versions") or {},
            "stopped": self.run.summary.get("stopped"),
            "live": not self.run.summary,
        }

    @staticmethod
    def _share(share: CauseShare) -> dict[str, Any]:
        return {**asdict(share), "words": share.cause.words, "meaning": share.cause.meaning}


class Packer:
    """Collects JSON lines and gives them out as compressed chunks of about a megabyte."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.number = 0
        """Of the chunk that is being filled."""

    def add(self, value: Any) -> bytes | None:
        """Take one conversation; the packed chunk when this one filled it."""
        line = _encode(value)
        self._parts.append(line)
        self._size += len(line)
        return self.flush() if self._size >= _CHUNK_BYTES else None

    def flush(self) -> bytes | None:
        """The packed rest; None where there is none."""
        if not self._parts:
            return None
        packed = pack(b"[" + b",".join(self._parts) + b"]")
        self._parts, self._size = [], 0
        self.number += 1
        return packed


def pack(data: bytes) -> bytes:
    """Bytes as base64 of gzip: text that no HTML or script can be broken out of."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0))


def make_report(directories: Sequence[Path], output: Path, folder_beyond: int = FOLDER_BEYOND) -> Path:
    """Write the report of one run or several, and return the page to open.

    Args:
        output: the HTML file; where a folder is needed, it is the folder's place without the ending.
        folder_beyond: simulations from which a folder is made.

    Raises:
        UserError: a directory holds no record, or the report cannot be written.
    """
    names = distinct_names(directories)
    runs = [RunPart(read_run(directory, name)) for directory, name in zip(directories, names, strict=True)]
    listed = [overviews(directory) for directory in directories]
    total = sum(map(len, listed))
    if not total:
        raise UserError(f"{', '.join(map(str, directories))}: no simulation is over yet, so there is nothing to show")
    if total <= folder_beyond:
        chunks: list[bytes] = []
        rows = _read(runs, listed, chunks.append)
        with replaced(output) as file:
            file.write(_single_page(runs, rows, chunks, len(runs) > 1).encode("utf-8", "backslashreplace"))
        return output
    folder = output.with_suffix("") if output.suffix == ".html" else output
    return _write_folder(folder, runs, listed)


def _read(runs: Sequence[RunPart], listed: Sequence[list[Overview]], keep: Any) -> list[dict[str, Any]]:
    """One row for each simulation; their conversations go to `keep` in packed chunks."""
    rows: list[dict[str, Any]] = []
    packer = Packer()
    several = len(runs) > 1
    for run, found in zip(runs, listed, strict=True):
        tasks = TaskTexts(run.run.directory)
        reviews = read_reviews(run.run.directory)
        for one in sorted(found, key=lambda one: (one.domain, _natural(one.task_id), one.trial)):
            record = read_record(run.run.directory, one)
            row = row_of(record)
            key = f"{run.run.name}:{row.id}/{row.trial}" if several else f"{row.id}/{row.trial}"
            run.figures.add(row, key)
            review = reviews.get(SimulationKey(row.domain, row.task_id, row.trial))
            if review is not None and review.is_of(record):
                run.reviews[review.key] = review
            else:
                review = None  # none, or one of a simulation that was scored anew since
            rows.append(_page_row(row, key, run.run.name, packer.number, review))
            task = tasks.get(row.id)
            packed = packer.add({"key": key, "task": _task(task), **conversation_of(record, review)})
            if packed is not None:
                keep(packed)
    rest = packer.flush()
    if rest is not None:
        keep(rest)
    return rows


def _page_row(row: Row, key: str, run: str, chunk: int, review: Review | None) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in _SHOWN_IN_ROW}
    shown["detail"] = None if row.detail is None else redact(row.detail)[:300]
    fault = None if review is None else str(review.verdict)
    return {"key": key, "run": run, "chunk": chunk, "fault": fault, **shown}


def _task(task: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the customer wants, without the criteria, which are shown as checks."""
    if task is None:
        return None
    kept = ("description", "user_scenario", "ticket")
    return {name: task[name] for name in kept if task.get(name)}


def _single_page(runs: Sequence[RunPart], rows: list[dict[str, Any]], chunks: list[bytes], several: bool) -> str:
    return _render(
        runs,
        table=rows,
        several=several,
        rows_data=pack(_encode(rows)).decode(),
        chunks=[chunk.decode() for chunk in chunks],
        folder=False,
        pages=[],
    )


def _write_folder(folder: Path, runs: Sequence[RunPart], listed: Sequence[list[Overview]]) -> Path:
    part = folder.with_name(f".{folder.name}.part")
    with writing(folder):
        shutil.rmtree(part, ignore_errors=True)
        (part / "data").mkdir(parents=True)
        written = 0

        def keep(packed: bytes) -> None:
            nonlocal written
            (part / "data" / f"conversations-{written}.js").write_bytes(b'tau2("' + packed + b'");\n')
            written += 1

        rows = _read(runs, listed, keep)
        (part / "data" / "rows.js").write_bytes(b'tau2("' + pack(_encode(rows)) + b'");\n')
        pages = [f"simulations-{number}.html" for number in range(-(-len(rows) // _PAGE_ROWS))]
        for number, name in enumerate(pages):
            shown = rows[number * _PAGE_ROWS : (number + 1) * _PAGE_ROWS]
            text = environment().get_template("table.html.j2").render(
                rows=shown, pages=pages, number=number, several=len(runs) > 1, style=template_text("report.css"),
                style_hash=policy_digest(template_text("report.css")), reviewed=any(run.reviews for run in runs),
            )  # fmt: skip
            (part / name).write_text(redact(text), encoding="utf-8", errors="backslashreplace")
        index = _render(
            runs, table=[], several=len(runs) > 1, rows_data="", chunks=[""] * written, folder=True, pages=pages
        )
        (part / "index.html").write_text(redact(index), encoding="utf-8", errors="backslashreplace")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    return folder / "index.html"


def _render(runs: Sequence[RunPart], **more: Any) -> str:
    style, script = template_text("report.css"), template_text("report.js")
    page: str = (
        environment()
        .get_template("report.html.j2")
        .render(
            runs=[run.for_page() for run in runs],
            reviewed=any(run.reviews for run in runs),
            style=style,
            script=script,
            style_hash=policy_digest(style),
            script_hash=policy_digest(script),
            **more,
        )
    )
    return page


def _encode(value: Any) -> bytes:
    """JSON without keys; integers past 64 bits and lone surrogates included."""
    from tau2_fleet.record.line import encode_line

    return redactor.redact_bytes(encode_line(value).rstrip(b"\n"))


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


def _shown(value: Any) -> str:
    """A value of a key as a command line would take it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
