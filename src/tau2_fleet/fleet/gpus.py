"""The GPUs of this machine, from NVML; planning and sampling ask here. Where there is no NVML there are none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that a server can be given."""

    index: int
    """NVML's number (PCI order)."""
    uuid: str
    name: str
    memory_total: int
    """Bytes."""
    memory_used: int
    parts: tuple[str, ...] = ()
    """UUIDs of its MIG instances; empty when it is not divided."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Use of one GPU now."""

    index: int
    utilisation: float
    """0 to 1."""
    memory_used: int
    memory_total: int


def gpus() -> list[Gpu]:
    """All GPUs that NVML shows; empty where there is no driver."""
    found = []
    with _nvml() as nvml:
        if nvml is None:
            return []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(
                Gpu(
                    index=index,
                    uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                    name=_text(nvml.nvmlDeviceGetName(handle)),
                    memory_total=int(memory.total),
                    memory_used=int(memory.used),
                    parts=_parts(nvml, handle),
                )
            )
    return found


def readings() -> list[GpuReading]:
    """Use and memory of every GPU; those that do not tell are left out."""
    found = []
    with _nvml() as nvml:
        if nvml is None:
            return []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                use = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            except nvml.NVMLError:
                continue
            found.append(GpuReading(index, use, int(memory.used), int(memory.total)))
    return found


def visible_devices(all_gpus: list[Gpu]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES could hold for one server each: the user's own list if set, else all there is."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        devices: list[str] = []
        for word in chosen.split(","):
            word = word.strip()
            if not word or word == "-1" or word == "NoDevFiles":
                break  # CUDA itself ignores what follows an invalid entry
            devices.append(word)
        return devices
    return [device for gpu in all_gpus for device in (gpu.parts or (str(gpu.index),))]


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _parts(nvml: Any, handle: Any) -> tuple[str, ...]:
    try:
        enabled, _ = nvml.nvmlDeviceGetMigMode(handle)
        if not enabled:
            return ()
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return ()
    found = []
    for number in range(count):
        try:
            found.append(_text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))))
        except nvml.NVMLError:
            continue
    return tuple(found)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
