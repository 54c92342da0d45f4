"""Scores finished simulations again: `tau2-fleet rescore FILE_OR_DIR [--benchmark A,B] [--output FILE]`.

Takes results in any of the benchmark's forms, of this program or another one, and this program's own run directories,
and grades them under one version of the benchmark or several side by side. What cannot be scored is listed, and stops
nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.analysis.domain_of_run import domain_of_run
from tau2_fleet.analysis.rescore_files import INDEXED, files_to_score
from tau2_fleet.analysis.rescore_report import RescoredRow, RescoreReport, show_rescored
from tau2_fleet.analysis.score_again import Scored, Ways, alone, score_again
from tau2_fleet.benchmark.settings import DEFAULT, BenchmarkSettings
from tau2_fleet.display.console import complain
from tau2_fleet.errors import CannotWrite, ExitStatus, UserError, writing
from tau2_fleet.evaluation.verdicts import read_verdicts
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import SimulationKey, encode_line
from tau2_fleet.record.reading import stored_lines
from tau2_fleet.record.results_file import Results, read_results
from tau2_fleet.record.summary import read_summary
from tau2_fleet.record.unpacked import PACKED_ENDS

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domain import Domain
    from tau2_fleet.benchmark.package import Task
    from tau2_fleet.benchmark.version import BenchmarkVersion


@dataclass(frozen=True, slots=True)
class RescoreOptions:
    """How a source is to be scored."""

    benchmarks: tuple[str, ...] = ()
    """`NAME` or `NAME:PATH` each; empty: what the source says that it is of, else the installed package's."""
    data_dir: Path | None = None
    read_as: str | None = None
    """A domain of ours, in place of the one that a file names."""
    ways: Ways = field(default_factory=Ways)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 4 when some simulations were refused, 1 when nothing can be read."""
    parser = argparse.ArgumentParser(prog="tau2-fleet rescore", description=__doc__.split("\n\n")[1])
    parser.add_argument("source", type=Path, metavar="FILE_OR_DIR", help="results of any form, record or run directory")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the new rewards here (a directory, when several files)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="other benchmark data, as benchmark.data_dir")
    parser.add_argument(
        "--benchmark",
        metavar="A,B",
        help="grade under these, side by side: tau2-0.2, tau2-verified, tau2-1.0.1, or any with its data as NAME:DIR; "
        "else the one that the source names",
    )
    parser.add_argument(
        "--replay",
        choices=("strict", "lenient"),
        default="lenient",
        help="strict: refuse a run whose recorded tool outputs a replay does not give again; lenient (default): count "
        "those of calls that change something, pass over reads and unknown tools",
    )
    parser.add_argument("--as", dest="read_as", metavar="DOMAIN", help="read a fork's domain as this one")
    parser.add_argument("--verdicts", type=Path, metavar="FILE", help="the judge's answers, a JSON line a simulation")
    given = parser.parse_args(argv)
    try:
        answers = {} if given.verdicts is None else read_verdicts(given.verdicts)
        benchmarks = tuple(name.strip() for name in (given.benchmark or "").split(",") if name.strip())
        ways = Ways(strict=given.replay == "strict", answers=answers)
        options = RescoreOptions(benchmarks, given.data_dir, given.read_as, ways)
        reports = asyncio.run(rescore(given.source, given.output, options))
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    if all(report.problem is not None and not report.rows for report in reports):
        for report in reports:
            complain(report.problem or "")
        return ExitStatus.FAILED
    show_rescored(reports)
    return ExitStatus.FINISHED if all(report.complete for report in reports) else ExitStatus.PARTIAL


async def rescore(
    source: Path, output: Path | None = None, options: RescoreOptions | None = None
) -> list[RescoreReport]:
    """Score every simulation of a file, or of the files of a directory, and write them to `output`.

    With several versions the rewards of the first are written. A file that cannot be read is reported as such.

    Raises:
        UserError: nothing to score there, a version that there is not, or `output` cannot be written.
    """
    options = options or RescoreOptions()
    for name in options.benchmarks:
        _version(name, options.data_dir, alone=len(options.benchmarks) == 1)
    paths = files_to_score(source)
    several = source.is_dir()
    if output is not None and several:
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
    reports = []
    for path in paths:
        target = output
        if output is not None and (several or output.is_dir()):
            target = output / _name_written(path)
        report = RescoreReport(path)
        reports.append(report)
        try:
            await (_rescore_records if path.suffix == ".jsonl" else _rescore_results)(report, target, options)
        except CannotWrite:
            raise
        except UserError as error:
            report.problem = str(error)
    return reports


def _name_written(path: Path) -> str:
    """What a file's new rewards are written as; nothing is compressed."""
    if path.name == INDEXED:
        return f"{path.parent.name}.json"
    return path.stem if path.suffix in PACKED_ENDS else path.name


def _version(name: str, data_dir: Path | None, *, alone: bool) -> BenchmarkVersion:
    """A version by `NAME` or `NAME:PATH`; of several, those that the installed package is enough for use its data."""
    from tau2_fleet.benchmark.version import find_version

    name, _, path = name.partition(":")
    if name == "custom":
        return find_version(BenchmarkSettings(name, path=path or None))
    version = find_version(BenchmarkSettings(name, path or (None if data_dir is None else str(data_dir))))
    if not alone and not path and version.needs_data == frozenset():
        version.data_dir = None
    return version


def _versions(options: RescoreOptions, path: Path, about: Any) -> list[BenchmarkVersion | None]:
    """Those that are asked for, else the one that the source names; None: its directory's own."""
    names = options.benchmarks
    if names:
        return [_version(name, options.data_dir, alone=len(names) == 1) for name in names]
    if (path.parent / ".hydra").is_dir() and options.data_dir is None:
        return [None]
    known = about if isinstance(about, dict) else {}
    name, data = str(known.get("name") or DEFAULT), known.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if options.data_dir is None and name != DEFAULT and isinstance(source, str) and Path(source).is_dir():
        return [_version(f"{name}:{source}", None, alone=True)]
    try:
        return [_version(name, options.data_dir, alone=True)]
    except UserError as error:
        if name == DEFAULT:
            raise
        raise UserError(f"{path}: says that it is of {name}: {error}; name another with --benchmark") from error


def _labels(domains: Sequence[Domain], options: RescoreOptions) -> list[str]:
    """How columns are headed: by name, and by the path as well where a name comes twice."""
    names = [domain.version.name for domain in domains]
    return names if len(set(names)) == len(names) else list(options.benchmarks)


def _outside(report: RescoreReport, domains: Sequence[Domain]) -> dict[str, frozenset[str]]:
    return {name: domain.rules.outside_metrics for name, domain in zip(report.versions, domains, strict=True)}


def _domain(version: BenchmarkVersion | None, name: str, path: Path, options: RescoreOptions) -> Domain:
    """A domain of a version; None: of the benchmark that the run in that directory was a run of."""
    from tau2_fleet.benchmark.domains import DOMAINS

    # The version has the folder of data; a domain of one's own is such a folder itself.
    data_dir = options.data_dir if version is None or name not in DOMAINS else None
    return domain_of_run(name, path.parent, data_dir, version)


async def _rescore_results(report: RescoreReport, target: Path | None, options: RescoreOptions) -> None:
    results = read_results(report.path)
    name = options.read_as or results.domain
    if not name:
        raise UserError(f"{report.path}: a simulation alone does not say its domain: name it with --as DOMAIN")
    about = (results.head.get("info") or {}).get("benchmark")
    versions = _versions(options, report.path, about)
    given = [version and (version if results.single else version.for_given_tasks()) for version in versions]
    domains = [_domain(version, name, report.path, options) for version in given]
    report.versions, report.domains = _labels(domains, options), [domains[0].name]
    report.outside = _outside(report, domains)
    if results.form and not about and not options.benchmarks:
        report.note = (
            f"has the form of {results.form} and is graded by {domains[0].version.name}; "
            f"its own rules: --benchmark {results.form}:DATA, DATA being that version's data/"
        )
    if target is not None and isinstance(results.head.get("info"), dict):
        results.head["info"] = _labelled(results.head["info"], domains[0])
    tasks: list[Mapping[str, Task]] = [results.tasks for _ in domains]
    if results.single:
        tasks = [domain.find([str(results.head.get("task_id"))]) for domain in domains]
    with nullcontext() if target is None else results.writer(target) as write:
        for simulation in results.simulations():
            solo = results.solo or alone(simulation)
            await _score(report, domains, tasks, simulation, options, results, solo)
            if write is not None:
                write(simulation)


def _labelled(info: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """The head of a file whose rewards are those of a domain's version: whatever it said of another one goes."""
    known = info.get("benchmark")
    version = domain.version
    if isinstance(known, dict) and (known.get("name"), known.get("scoring")) == (version.name, version.rules.name):
        return info
    return {**info, "benchmark": {"name": version.name, "scoring": version.rules.name, "label": version.name}}


async def _score(
    report: RescoreReport,
    domains: Sequence[Domain],
    tasks: Sequence[Mapping[str, Task]],
    simulation: dict[str, Any],
    options: RescoreOptions,
    results: Results | None,
    solo: bool,
) -> None:
    """Score a simulation under each version; it keeps what the first gives."""
    copies = [simulation, *({**simulation} for _ in domains[1:])]
    report.rows.append(
        RescoredRow(
            tuple(
                [
                    await score_again(
                        domain,
                        known,
                        copy,
                        solo=solo,
                        record=results is None,
                        ways=options.ways,
                        unscorable=None if results is None else results.unscorable,
                    )
                    for domain, known, copy in zip(domains, tasks, copies, strict=True)
                ]
            )
        )
    )


async def _rescore_records(report: RescoreReport, target: Path | None, options: RescoreOptions) -> None:
    """The record of a run: the last line of a (domain, task, trial) counts, the others stay as they are."""
    path = report.path
    last: dict[SimulationKey, int] = {}
    for line in stored_lines(path):
        if line.record is not None:
            last[line.record.key] = line.number
    versions = _versions(options, path, read_summary(path.parent).get("benchmark"))
    domains: dict[str, list[Domain]] = {}
    tasks: dict[str, list[Mapping[str, Task]]] = {}
    for name in dict.fromkeys(key.domain for key in last):
        domains[name] = [_domain(version, name, path, options) for version in versions]
        ids = [key.task_id for key in last if key.domain == name]
        tasks[name] = [domain.find(ids) for domain in domains[name]]
        report.versions = _labels(domains[name], options)
        report.outside |= _outside(report, domains[name])
    report.domains = list(domains)
    with nullcontext() if target is None else replaced(target) as file:
        for line in stored_lines(path):
            if line.record is None:
                damaged = Scored(f"line {line.number}", None, detail=f"damaged: {line.damage}")
                report.rows.append(RescoredRow(tuple(damaged for _ in versions)))
                continue
            record = line.record.as_dict()
            if last[line.record.key] == line.number:
                name = line.record.domain
                # Only an agent that works alone can end a simulation itself.
                solo = line.record.termination_reason == "agent_stop"
                await _score(report, domains[name], tasks[name], record, options, None, solo)
            if file is not None:
                file.write(encode_line(record))
    if not last and report.rows:
        first = report.rows[0].scored[0]
        report.rows.clear()
        raise UserError(f"{path}: holds no record of a simulation: {first.name} is {first.detail}")
