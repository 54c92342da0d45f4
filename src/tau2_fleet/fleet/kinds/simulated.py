"""`server=simulated`: our own servers, which play the gold actions of each task."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.server_kind import LaunchedKind, PoolSpec, Preparation, ServerCommand, Starter
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.fleet.vllm_command import served_name
from tau2_fleet.paths import IMPORT_ROOT


class Simulated(LaunchedKind):
    """Needs no GPU, no model, no key."""

    name = "simulated"
    keeps_alive = True

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        return PoolSpec(name, self, model or name, num=server.num, tool_call_parser=None, min_ready=server.min_ready)

    def check(self, pools: Sequence[PoolSpec], server: ServerSettings, tasks_file: Path | None) -> None:
        if tasks_file is None:
            raise UserError("simulated servers need the tasks that they are to play: no tasks file was given")

    async def prepare(self, preparation: Preparation) -> Starter:
        server, tasks_file = preparation.server, preparation.tasks_file
        options = json.dumps(asdict(server.simulated))
        return lambda placement, host, port: ServerCommand(
            [
                *(sys.executable, "-m", "tau2_fleet.simserver"),
                *("--host", host),
                *("--port", str(port)),
                *("--model", served_name(placement.pool) or "simulated"),
                *("--tasks", str(tasks_file)),
                *("--role-pool", placement.pool.name),
                *("--options", options),
            ],
            cwd=IMPORT_ROOT,
        )
