"""Scores finished simulations again: `tau2-fleet rescore FILE_OR_DIR [--output FILE]`.

Takes any file in the benchmark's results schema, of this program or another one, and this program's own run
directories. A trajectory whose recorded tool outputs are not those of a replay is refused, as the benchmark does.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from tau2_fleet.analysis.domain_of_run import domain_of_run, own_domains
from tau2_fleet.analysis.score_again import Scored, alone, score_again
from tau2_fleet.display.columns import cell, in_columns
from tau2_fleet.display.console import complain, neutralise, out, wide
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import SimulationKey, encode_line
from tau2_fleet.record.reading import RECORD_FILE, stored_lines
from tau2_fleet.record.results_file import Simulation, read_results

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domains import Domain
    from tau2_fleet.benchmark.package import Task
    from tau2_fleet.benchmark.version import BenchmarkVersion


@dataclass(slots=True)
class RescoreReport:
    """One file."""

    path: Path
    domains: list[str]
    simulations: list[Scored] = field(default_factory=list)

    @property
    def refused(self) -> list[Scored]:
        return [scored for scored in self.simulations if scored.new is None]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 4 when some simulations were refused, 1 when nothing can be read."""
    parser = argparse.ArgumentParser(prog="tau2-fleet rescore", description=__doc__.split("\n\n")[1])
    parser.add_argument("source", type=Path, metavar="FILE_OR_DIR", help="results file, record file or run directory")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the new rewards here (a directory, when several files)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="other benchmark data, as domain.X.data_dir")
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help="score by another benchmark than the run's: tau2-0.2, tau2-1.0.1, custom:PATH (a checkout or a wheel)",
    )
    options = parser.parse_args(argv)
    try:
        version = None if options.benchmark is None else _version(options.benchmark)
        reports = asyncio.run(rescore(options.source, options.output, options.data_dir, version))
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    _show(reports)
    return ExitStatus.PARTIAL if any(report.refused for report in reports) else ExitStatus.FINISHED


def _version(text: str) -> BenchmarkVersion:
    """The benchmark that `NAME` or `NAME:PATH` means.

    Raises:
        UserError: there is none.
    """
    from tau2_fleet.benchmark.settings import BenchmarkSettings
    from tau2_fleet.benchmark.version import find_version

    name, _, path = text.partition(":")
    return find_version(BenchmarkSettings(name=name, path=path or None))


async def rescore(
    source: Path,
    output: Path | None = None,
    data_dir: Path | None = None,
    version: BenchmarkVersion | None = None,
) -> list[RescoreReport]:
    """Score every simulation of a file, or of the files of a directory, and write them to `output`.

    Args:
        version: of the benchmark; None: that of the run.

    Raises:
        UserError: nothing to score there, or a file is not of a form that can be read.
    """
    paths = _files(source)
    several = source.is_dir()
    if output is not None and several:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    reports = []
    for path in paths:
        target = output
        if output is not None and (several or output.is_dir()):
            target = output / path.name
        if path.suffix == ".jsonl":
            reports.append(await _rescore_records(path, target, data_dir, version))
        else:
            reports.append(await _rescore_results(path, target, data_dir, version))
    return reports


def _files(source: Path) -> list[Path]:
    """The files to score: of a run directory one per domain, or the record where it is ahead of them."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or directory")
    from tau2_fleet.benchmark.domains import DOMAINS

    names = (*DOMAINS, *own_domains(source))
    found = [path for name in names if (path := source / f"{name}.json").is_file()]
    record = source / RECORD_FILE
    if record.is_file() and all(path.stat().st_mtime < record.stat().st_mtime for path in found):
        found = [record]
    if not found:
        found = [path for path in sorted(source.glob("*.json")) if _is_results(path)]
    if not found:
        raise UserError(f"{source}: holds no results; wanted {{domain}}.json, {RECORD_FILE} or a results file")
    return found


def _is_results(path: Path) -> bool:
    try:
        read_results(path)
    except UserError:
        return False
    return True


async def _rescore_results(
    path: Path, target: Path | None, data_dir: Path | None, version: BenchmarkVersion | None
) -> RescoreReport:
    results = read_results(path)
    domain = domain_of_run(results.domain, path.parent, data_dir, version)
    report = RescoreReport(path, [domain.name])

    async def scored() -> AsyncIterator[Simulation]:
        for simulation in results.simulations():
            report.simulations.append(
                await score_again(domain, results.tasks, simulation, solo=results.solo or alone(simulation))
            )
            yield simulation

    if target is None:
        async for _ in scored():
            pass
    else:
        with results.writer(target) as write:
            async for simulation in scored():
                write(simulation)
    return report


async def _rescore_records(
    path: Path, target: Path | None, data_dir: Path | None, version: BenchmarkVersion | None
) -> RescoreReport:
    """The record of a run: the last line of a (domain, task, trial) counts, the others stay as they are."""
    last: dict[SimulationKey, int] = {}
    for line in stored_lines(path):
        if line.record is not None:
            last[line.record.key] = line.number
    domains: dict[str, tuple[Domain, dict[str, Task]]] = {}
    for name in dict.fromkeys(key.domain for key in last):
        domain = domain_of_run(name, path.parent, data_dir, version)
        domains[name] = (domain, domain.find(key.task_id for key in last if key.domain == name))
    report = RescoreReport(path, list(domains))
    with nullcontext() if target is None else replaced(target) as file:
        for line in stored_lines(path):
            if line.record is None:
                report.simulations.append(Scored(f"line {line.number}", None, detail=f"damaged: {line.damage}"))
                continue
            record = line.record.as_dict()
            if last[line.record.key] == line.number:
                domain, tasks = domains[line.record.domain]
                # Only an agent that works alone can end a simulation itself.
                solo = line.record.termination_reason == "agent_stop"
                report.simulations.append(await score_again(domain, tasks, record, solo=solo, record=True))
            if file is not None:
                file.write(encode_line(record))
    if not last and report.simulations:
        raise UserError(
            f"{path}: holds no record of a simulation: {report.simulations[0].name} is {report.simulations[0].detail}"
        )
    return report


def _show(reports: Sequence[RescoreReport]) -> None:
    """What changed and what was refused, then a line for each file."""
    for report in reports:
        told = [item for item in report.simulations if item.changed or item.new is None]
        if told:
            rows = [
                (
                    cell(neutralise(item.name)),
                    cell(_number(item.old)),
                    cell("refused", "red") if item.new is None else cell(_number(item.new)),
                    cell(neutralise(item.detail)),
                )
                for item in told
            ]
            out.out(neutralise(report.path.name), highlight=False)
            lines = in_columns(("simulation", "old", "new", "why"), rows, "", colours=out.color_system is not None)
            out.out(f"{lines}\n", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "domain", "simulations", "old reward", "new reward", "changed", "refused"):
        table.add_column(heading, justify="left" if heading in ("file", "domain") else "right")
    for report in reports:
        scored = [item for item in report.simulations if item.new is not None]
        old = [item.old for item in scored if item.old is not None]
        new = [item.new for item in scored if item.new is not None]
        table.add_row(
            escape(report.path.name),
            ", ".join(report.domains),
            str(len(report.simulations)),
            f"{fmean(old):.3f}" if old else "-",
            f"{fmean(new):.3f}" if new else "-",
            str(sum(item.changed for item in scored)),
            str(len(report.refused)),
        )
    wide.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
