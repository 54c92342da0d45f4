"""Everything before the first launch: which GPUs, which vLLM, models fetched, ports free. The fleet calls it once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet import hub
from tau2_fleet.fleet.command import HELP_WORDS, FlagBook, is_cpu_build, parse_flags, python_of, server_executable
from tau2_fleet.fleet.external import external_replicas
from tau2_fleet.fleet.extra_args import ExtraArgs
from tau2_fleet.fleet.gpus import Gpu, gpus, visible_devices
from tau2_fleet.fleet.launch import cache_root
from tau2_fleet.fleet.launcher import Launcher, VllmProgram
from tau2_fleet.fleet.plan import PoolKind, PoolSpec, plan
from tau2_fleet.fleet.reaper.reaper import shared_reaper
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.settings import Device, ServerSettings

log = logging.getLogger(__name__)

HELP_LIMIT_S = 120.0
"""Patience with a vLLM that is asked for its flags: it imports torch first, from a slow disk perhaps."""

_IN_USE = 0.1
"""Share of a GPU's memory above which it is told to be in use: vLLM wants nine tenths of it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A fleet that is ready to be launched."""

    replicas: tuple[Replica, ...]
    """In the order of ports, external ones last."""
    launcher: Launcher | None
    """None: there is nothing to launch."""
    uses_gpus: bool


async def prepare(
    pools: Sequence[PoolSpec], server: ServerSettings, logs: Path, key: str, tasks_file: Path | None
) -> Prepared:
    """Plan the pools and see to all that their launch needs; a hub model is downloaded here.

    Raises:
        UserError: something is missing, does not fit, or a port is taken.
    """
    external = external_replicas(pools)
    if all(spec.kind is PoolKind.external for spec in pools):
        return Prepared(tuple(external), None, uses_gpus=False)
    logs.mkdir(parents=True, exist_ok=True)
    reaper = shared_reaper(logs / "reaper.log")
    if tasks_file is None and any(spec.kind is PoolKind.simulated for spec in pools):
        raise UserError("simulated servers need the tasks that they are to play: no tasks file was given")
    launched = [spec for spec in pools if spec.kind is PoolKind.vllm]
    executable = server_executable(server.executable) if launched else None
    on_hub = [spec for spec in launched if hub.is_on_hub(spec.model or "", spec.model_key)]
    devices = await asyncio.to_thread(choose_devices, server, executable) if executable else []
    found = plan(pools, server, devices)
    for warning in found.warnings:
        log.warning("%s", warning)
    program = None
    if executable is not None:
        tools = Launcher(server, logs, reaper, key, None, None)
        program = VllmProgram(executable, await _flags(tools, executable, logs), cpu=devices is None)
        for spec in on_hub:
            await _download(tools, executable, spec, logs)
    launcher = Launcher(server, logs, reaper, key, program, tasks_file)
    replicas = launcher.replicas(found.placements)
    await launcher.check_ports(replicas)
    return Prepared((*replicas, *external), launcher, uses_gpus=bool(devices))


def choose_devices(server: ServerSettings, executable: str) -> list[str] | None:
    """What the servers may be given: entries for CUDA_VISIBLE_DEVICES, or None for the CPU.

    Raises:
        UserError: `server.gpu_ids` names a GPU that is not there.
    """
    if server.device is Device.cpu:
        return None
    if server.gpu_ids is None and server.device is Device.auto and is_cpu_build(executable):
        return None
    found = gpus()
    devices = visible_devices(found) if server.gpu_ids is None else _named(server.gpu_ids, found)
    for gpu in found:
        if str(gpu.index) in devices and gpu.memory_used > _IN_USE * gpu.memory_total:
            used, total = gpu.memory_used / 2**30, gpu.memory_total / 2**30
            log.warning("GPU %d (%s) has %.0f of %.0f GiB in use already", gpu.index, gpu.name, used, total)
    return devices


def _named(gpu_ids: Sequence[int], found: Sequence[Gpu]) -> list[str]:
    there = {gpu.index for gpu in found}
    missing = sorted(set(gpu_ids) - there)
    if found and missing:
        raise UserError(f"server.gpu_ids={list(gpu_ids)}: there is no GPU {missing[0]} (there are 0 to {max(there)})")
    if not found:
        log.warning("NVML shows no GPU; server.gpu_ids=%s is taken as it is", list(gpu_ids))
    return [str(number) for number in gpu_ids]


async def _flags(launcher: Launcher, executable: str, logs: Path) -> frozenset[str]:
    """The flags that this vLLM knows; asking it takes ten seconds, so that the answer is kept across runs."""
    book = FlagBook(cache_root())
    known = book.read(executable)
    if known is not None:
        return known
    log.info("asking %s which flags it knows (once)", executable)
    text, target = "", logs / "vllm-help.log"
    for word in HELP_WORDS:
        try:
            _, text = await launcher.run_tool([executable, "serve", word], target, HELP_LIMIT_S)
        except TimeoutError:
            asked = f"`serve {word}` has not ended within {HELP_LIMIT_S:g} s"
            raise UserError(f"server.executable={executable}: {asked} (log: {target})") from None
        if flags := parse_flags(text):
            book.write(executable, flags)
            return flags
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    raise UserError(f"server.executable={executable} does not show its flags: {last.strip()[:300]}")


async def _download(launcher: Launcher, executable: str, spec: PoolSpec, logs: Path) -> None:
    assert spec.model is not None
    target = logs / f"download-{spec.name}.log"
    log.info("fetching %s from the hub unless it is in the cache (log: %s)", spec.model, target)
    extra = ExtraArgs.parse(spec.extra_args, spec.name)
    command = hub.download_command(python_of(executable), spec.model, extra)
    status, output = await launcher.run_tool(command, target, needs_hub=True)
    if status != 0:
        raise hub.download_failure(spec.model, spec.model_key, output, target)
