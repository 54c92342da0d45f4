"""Which GPUs the servers of a run may be given; kinds of servers that need some ask."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.gpus import Gpu, gpus, visible_devices
from tau2_fleet.fleet.settings import Device, ServerSettings
from tau2_fleet.fleet.vllm_command import is_cpu_build

log = logging.getLogger(__name__)

_IN_USE = 0.1
"""Share of a GPU's memory above which it is told to be in use: vLLM wants nine tenths of it."""


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
