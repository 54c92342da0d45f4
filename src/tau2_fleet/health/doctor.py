"""`tau2-fleet doctor [key=value ...]`: what a configuration needs, and whether it is there, a line per check.

Takes the same settings as `tau2-fleet run`. Exit status 1 when the chosen configuration could not run.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.errors import ExitStatus
from tau2_fleet.invocation import install_hint
from tau2_fleet.paths import use_scratch_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tau2_fleet.config import Config
    from tau2_fleet.health.finding import Finding
    from tau2_fleet.health.findings import FindingsReport
    from tau2_fleet.run.plan import RunPlan

_USAGE = """usage: tau2-fleet doctor [--no-calls] [key=value ...]

Says what the configuration needs and whether it is there; the settings are those of tau2-fleet run.
  --no-calls   do not ask remote models (each is asked once otherwise, for a fraction of a cent)"""

_NO_CALLS = "--no-calls"


def main(arguments: Sequence[str] | None = None, today: Callable[[], date] = date.today) -> int:
    """Run the tool; returns its exit status. `today` says which models can still be asked."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from tau2_fleet.display.console import out
        from tau2_fleet.health.findings import FindingsReport
    except ModuleNotFoundError as error:
        # Before the first installation there is not even what draws a line.
        sys.stderr.write(f"error: the package {error.name} is not installed here; run: {install_hint()}\n")
        return ExitStatus.FAILED
    if any(argument in ("-h", "--help") for argument in given):
        out.print(_USAGE, markup=False)
        return ExitStatus.FINISHED
    overrides = [argument for argument in given if argument != _NO_CALLS]
    report = FindingsReport()
    asyncio.run(_examine(report, overrides, calls=_NO_CALLS not in given, today=today()))
    return report.conclude()


async def _examine(report: FindingsReport, overrides: Sequence[str], calls: bool, today: date) -> None:
    from tau2_fleet.config.expert_choice import choose_experts
    from tau2_fleet.config.validation import unchecked_config, with_absolute_paths
    from tau2_fleet.health import machine
    from tau2_fleet.health.finding import note, ok
    from tau2_fleet.paths import CHECKOUT

    report.run("python", machine.check_python)
    report.run("packages", machine.check_packages)
    report.run("benchmark", machine.check_benchmark)
    composed = report.value("configuration", lambda: _composed(overrides))
    if composed is None:
        return
    tree, run_dir = composed
    for line in report.value("experts", lambda: choose_experts(tree)) or ():
        report.add(note("experts", line))
    report.value("configuration", lambda: with_absolute_paths(tree))
    config = report.value("configuration", lambda: unchecked_config(tree))
    if config is None:
        return
    from tau2_fleet.fleet.host import make_hosts
    from tau2_fleet.health.hosts import check_hosts
    from tau2_fleet.health.model_checks import check_keys, check_lifetimes, check_remote, check_wandb
    from tau2_fleet.health.servers import check_checkpoints, check_external, check_gpus, check_plan
    from tau2_fleet.health.vllm_programs import check_vllm
    from tau2_fleet.run.plan import plan_run
    from tau2_fleet.run.resume import check_same_data

    valid = report.value("configuration", lambda: _checked(tree, run_dir)) is not None
    if valid:
        report.add(ok("configuration", " ".join(overrides) or "the plain defaults"))
    places = {"the run": run_dir, "temporary files": Path(tempfile.gettempdir())}
    report.run("open files", lambda: machine.check_open_files(config.most_in_flight, config.auto_concurrency))
    report.run("disk", lambda: machine.check_disk(places))
    plan = report.value("tasks", lambda: plan_run(config))
    if plan is None:
        return
    report.run("tasks", lambda: _tasks(plan))
    await report.run_async("agent", lambda: _rehearse(plan))
    report.value("data", lambda: check_same_data(plan, run_dir))
    models = plan.models.by_name()
    # Where the configuration is not valid, what is wrong with its pools has been said.
    specs = report.value("fleet", lambda: plan.pools) if valid else None
    launches = [spec for spec in specs or () if spec.kind.name == "vllm"]
    needs_vllm = bool(launches) if specs is not None else config.server.kind_name == "vllm"
    local = config.hosts.kind == "local"
    files_here = not valid or make_hosts(config.hosts).here
    report.run("GPUs", lambda: check_gpus(local and needs_vllm and config.server.device != "cpu"))
    report.run("vllm", lambda: check_vllm(config.server, needs_vllm and files_here, CHECKOUT))
    report.run("model", lambda: check_checkpoints(launches if files_here else []))
    if specs is not None:
        if local:
            report.run("fleet", lambda: check_plan(specs, config.server))
        await report.run_async("hosts", lambda: check_hosts(config, specs, run_dir))
        await report.run_async("servers", lambda: check_external(specs))
    report.run("keys", lambda: check_keys(models))
    await report.run_async("lifetime", lambda: check_lifetimes(models, calls, today, config.experiment_name))
    await report.run_async("model", lambda: check_remote(models, calls))
    await report.run_async("W&B", lambda: check_wandb(config.wandb))


def _composed(overrides: Sequence[str]) -> tuple[DictConfig, Path]:
    """What `tau2-fleet run` would run with these arguments, and where it would write."""
    from tau2_fleet.config import compose
    from tau2_fleet.config.command_line import for_hydra, read_dotenv
    from tau2_fleet.errors import UserError
    from tau2_fleet.run.directory import planned_run_dir
    from tau2_fleet.run.resume import resumed_arguments

    read_dotenv()
    arguments = resumed_arguments(for_hydra(overrides))
    flag = next((argument for argument in arguments if argument.startswith("-")), None)
    if flag in ("-m", "--multirun"):
        raise UserError(
            "a sweep is examined job by job: leave out --multirun, and give one value per key (or resume one job)"
        )
    if flag is not None:
        raise UserError(f"{flag}: the doctor takes settings (key=value) and {_NO_CALLS}")
    return compose(arguments), planned_run_dir(arguments)


def _checked(tree: DictConfig, run_dir: Path) -> Config:
    from tau2_fleet.config.validation import load_config
    from tau2_fleet.run.resume import check_resumable

    config = load_config(tree)
    use_scratch_dir(config.scratch_dir)
    check_resumable(config, run_dir)
    return config


async def _rehearse(plan: RunPlan) -> list[Finding]:
    """That agent and user can be made; nothing is said of this program's own."""
    from tau2_fleet.health.finding import ok

    names = (await plan.rehearsed()).implementations
    return [ok("agent", f"agent {names.agent}, user {names.user}")] if plan.scaffolds.own else []


def _tasks(plan: RunPlan) -> Iterator[Finding]:
    from tau2_fleet.health.finding import note, ok
    from tau2_fleet.health.machine import describe_data

    trials = plan.config.num_trials
    counts = ", ".join(f"{name} {len(tasks)}" for name, tasks in plan.selection.tasks.items())
    yield ok("tasks", f"{counts}, {trials} trial{'s' if trials > 1 else ''} each")
    if left_out := len(plan.selection.left_out):
        yield note("tasks", f"agent.mode={plan.config.agent.mode} cannot play {left_out} of the chosen tasks")
    package = Path(sys.prefix).resolve()
    foreign = {
        name: domain for name, domain in plan.benchmark.items() if not domain.folder.resolve().is_relative_to(package)
    }
    yield from describe_data(
        {name: dict(domain.digests) for name, domain in foreign.items()},
        {name: str(domain.folder) for name, domain in foreign.items()},
    )
