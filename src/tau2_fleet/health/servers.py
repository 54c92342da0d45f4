"""Checks of what the fleet needs: GPUs and their driver, checkpoints, ports, servers that run already."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from tau2_fleet.errors import UserError
from tau2_fleet.fleet import hub
from tau2_fleet.fleet.extra_args import ExtraArgs
from tau2_fleet.fleet.gpus import gpus
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.plan import plan
from tau2_fleet.fleet.ports import holder, is_free
from tau2_fleet.fleet.prepare import launched_kinds
from tau2_fleet.fleet.probe import ProbeError, http_session, listed, served_models
from tau2_fleet.fleet.server_kind import PoolSpec, devices_for
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.health.finding import Finding, note, ok, problem, warning
from tau2_fleet.health.machine import MODEL_ROOM, check_disk

_GIB = 2**30
_ANSWER_S = 5.0


def check_gpus(needed: bool) -> Finding:
    """The GPUs and their driver."""
    found = gpus()
    if not found:
        text = "none to be seen (no NVIDIA driver, or no GPU)"
        if needed:
            return warning("GPUs", text, "a vLLM for CPUs can do without; else check nvidia-smi")
        return note("GPUs", f"{text}; this configuration needs none")
    names = sorted({gpu.name for gpu in found})
    free = min(gpu.memory_total - gpu.memory_used for gpu in found)
    driver = _driver()
    text = f"{len(found)} × {', '.join(names)}, at least {free / _GIB:,.0f} GiB free each, driver {driver or 'unknown'}"
    busy = [str(gpu.index) for gpu in found if gpu.memory_used > 0.1 * gpu.memory_total]
    if needed and busy:
        return warning("GPUs", f"{text}; in use: {', '.join(busy)}", "name free ones: server.gpu_ids=[...]")
    return ok("GPUs", text) if needed else note("GPUs", f"{text}; this configuration needs none")


def _driver() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        text = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return text.decode() if isinstance(text, bytes) else str(text)


def check_checkpoints(specs: Sequence[PoolSpec]) -> Iterator[Finding]:
    """The checkpoints that the fleet is to serve, and room for those that must be downloaded."""
    missing: dict[str, Path] = {}
    for spec in specs:
        if spec.kind != Vllm() or spec.model is None:
            continue
        try:
            remote = hub.is_on_hub(spec.model, spec.model_key)
        except UserError as error:
            yield problem("model", str(error))
            continue
        if not remote:
            yield ok("model", f"{spec.model} for pool {spec.name}")
        elif _cached(spec).is_dir():
            yield ok("model", f"{spec.model} for pool {spec.name}, in the hub's cache")
        else:
            yield note("model", f"{spec.model} for pool {spec.name} will be downloaded from the hub before the launch")
            missing[spec.model] = _cached(spec).parent
    yield from check_disk(missing, MODEL_ROOM)


def _cached(spec: PoolSpec) -> Path:
    """Where a pool's model is in the hub's cache that its servers read."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    cache = ExtraArgs.parse(spec.extra_args, spec.name).value("--download-dir") or cache
    return Path(cache).expanduser() / f"models--{str(spec.model).replace('/', '--')}"


def check_plan(specs: Sequence[PoolSpec], server: ServerSettings) -> Iterator[Finding]:
    """Whether the pools fit the GPUs, and whether their ports are free."""
    launched = [spec for spec in specs if spec.kind.launched]
    if not launched:
        return
    try:
        found = plan(specs, server, devices_for(launched_kinds(specs), server))
    except UserError as error:
        yield problem("fleet", str(error))
        return
    for text in found.warnings:
        yield warning("fleet", text, "server.strict=true makes this an error")
    pools = ", ".join(f"{spec.name} × {sum(p.pool == spec for p in found.placements)}" for spec in launched)
    yield ok("fleet", pools)
    ports = [placement.port for placement in found.placements if placement.port]
    if ports:
        yield _ports(server.host, ports)


def _ports(host: str, ports: Sequence[int]) -> Finding:
    shown = f"{ports[0]}" if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"
    try:
        taken = [port for port in ports if not is_free(host, port)]
    except UserError as error:
        return problem("ports", str(error))
    if taken:
        who = holder(taken[0])
        return problem(
            "ports", f"{taken[0]} is held by {who}", "choose others with server.start_port=..., or end that process"
        )
    return ok("ports", f"{shown} on {host} free")


async def check_external(specs: Sequence[PoolSpec]) -> list[Finding]:
    """Whether servers that run already answer, and serve the model."""
    external = [(spec, url) for spec in specs if not spec.kind.launched for url in spec.endpoints]
    if not external:
        return []
    async with http_session() as http:
        return list(await asyncio.gather(*(_answers(http, spec, url) for spec, url in external)))


async def _answers(http: aiohttp.ClientSession, spec: PoolSpec, url: str) -> Finding:
    try:
        names = [model.id for model in await served_models(http, url, spec.api_key, _ANSWER_S)]
    except ProbeError as error:
        if error.status in (401, 403):
            return problem("servers", f"{url} refuses the key", "set server.api_key_env or server.api_key_file")
        return problem("servers", f"no server at {url}: {error}", "start it, or mend the URL")
    if spec.model is not None and spec.model not in names:
        return problem("servers", f"{url} serves {listed(names)}, not {spec.model}", "mend agent.model or the URL")
    return ok("servers", f"{url} serves {listed(names)}")
