"""`server=vllm`: `vllm serve` on this machine's GPUs or, with a build for it, on its CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet import hub
from tau2_fleet.fleet.devices import choose_devices
from tau2_fleet.fleet.extra_args import ExtraArgs
from tau2_fleet.fleet.launch import cache_root, command_words, find_executable
from tau2_fleet.fleet.server_kind import LaunchedKind, Placement, PoolSpec, Preparation, ServerCommand, Starter
from tau2_fleet.fleet.settings import Device, ServerSettings
from tau2_fleet.fleet.vllm_command import (
    HELP_WORDS,
    FlagBook,
    is_cpu_build,
    parse_flags,
    python_of,
    server_executable,
    vllm_command,
    vllm_environment,
)

log = logging.getLogger(__name__)

HELP_LIMIT_S = 120.0
"""Patience with a vLLM that is asked for its flags: it imports torch first, from a slow disk perhaps."""


class Vllm(LaunchedKind):
    """The usual choice for a checkpoint of one's own."""

    name = "vllm"
    keeps_alive = True

    def problems(self, server: ServerSettings, model: str | None) -> Iterator[str]:
        if model is None:
            yield (
                "agent.model is not set: give a local path or a hub id (agent.model=Qwen/Qwen3-8B), or set CKPT_DIR.\n"
                "Without a model: experiment=smoke runs on simulated ones."
            )
        elif model.startswith(("/", ".")) and not Path(model).is_dir():
            yield f"agent.model={model}: there is no such directory"
        if server.chat_template is not None and not Path(server.chat_template).is_file():
            yield f"server.chat_template={server.chat_template}: there is no such file"
        yield from super().problems(server, model)

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        if not model:
            raise UserError(
                "agent.model is not set: give a checkpoint's path or a hub id (or set CKPT_DIR), "
                "or use server=simulated or server=external"
            )
        return super().agent_pool(name, server, model)

    def gpus_per_replica(self, spec: PoolSpec) -> int:
        """Tensor-parallel size, times the pipeline- and data-parallel sizes found in `extra_args`."""
        extra = ExtraArgs.parse(spec.extra_args, spec.name)
        tensor = extra.number("--tensor-parallel-size", "-tp") or spec.tensor_parallel_size
        pipeline = extra.number("--pipeline-parallel-size", "-pp") or 1
        data = extra.number("--data-parallel-size", "-dp") or 1
        return tensor * pipeline * data

    def check(self, pools: Sequence[PoolSpec], server: ServerSettings, tasks_file: Path | None) -> None:
        server_executable(server.executable)
        for spec in pools:
            hub.is_on_hub(spec.model or "", spec.model_key)

    def devices(self, server: ServerSettings) -> list[str] | None:
        return choose_devices(server, find_executable(server.executable) or "")

    def on_cpu(self, server: ServerSettings) -> bool:
        return server.device is Device.auto and is_cpu_build(find_executable(server.executable) or "")

    async def prepare(self, preparation: Preparation) -> Starter:
        server = preparation.server
        if preparation.here:
            executable = server_executable(server.executable)
            on_hub = {spec.name for spec in preparation.pools if hub.is_on_hub(spec.model or "", spec.model_key)}
            book: FlagBook | None = FlagBook(cache_root())
        else:  # each host has its own, and fetches its own models
            executable, book = server.executable, None
            on_hub = {spec.name for spec in preparation.pools if not str(spec.model).startswith(("/", "~", "."))}
        flags = await _flags(preparation, executable, book)
        for spec in preparation.pools:
            if spec.name in on_hub and preparation.here:
                await _download(preparation, executable, spec)
        cpu = preparation.devices is None

        def start(placement: Placement, host: str, port: int) -> ServerCommand:
            return ServerCommand(
                vllm_command(executable, placement, host, port, flags, cpu),
                vllm_environment(placement.devices, cpu, flags),
                needs_hub=placement.pool.name in on_hub,
                compiles=True,
            )

        return start


async def _flags(preparation: Preparation, executable: str, book: FlagBook | None) -> frozenset[str]:
    """The flags that this vLLM knows; asking it takes ten seconds, so that the answer is kept across runs."""
    known = book.read(executable) if book else None
    if known is not None:
        return known
    log.info("asking %s which flags it knows (once)", executable)
    text, target = "", preparation.logs / "vllm-help.log"
    for word in HELP_WORDS:
        try:
            _, text = await preparation.run_tool(
                [*command_words(executable), "serve", word], target, HELP_LIMIT_S, False
            )
        except TimeoutError:
            asked = f"`serve {word}` has not ended within {HELP_LIMIT_S:g} s"
            raise UserError(f"server.executable={executable}: {asked} (log: {target})") from None
        if flags := parse_flags(text):
            if book:
                book.write(executable, flags)
            return flags
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    raise UserError(f"server.executable={executable} does not show its flags: {last.strip()[:300]}")


async def _download(preparation: Preparation, executable: str, spec: PoolSpec) -> None:
    assert spec.model is not None
    target = preparation.logs / f"download-{spec.name}.log"
    log.info("fetching %s from the hub unless it is in the cache (log: %s)", spec.model, target)
    extra = ExtraArgs.parse(spec.extra_args, spec.name)
    command = hub.download_command(python_of(executable), spec.model, extra)
    status, output = await preparation.run_tool(command, target, None, True)
    if status != 0:
        raise hub.download_failure(spec.model, spec.model_key, output, target)
