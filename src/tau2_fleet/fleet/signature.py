"""Whether two jobs can share one running fleet: a fleet keeps its signature, `lease.py` compares it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings

_OF_ONE_JOB = ("routing", "preflight", "strict", "stall_timeout_s")
"""Keys of `server` in which jobs that share a fleet may differ."""


def fleet_signature(
    pools: Sequence[PoolSpec], server: ServerSettings, tasks_file: Path | None, hosts: HostsSettings
) -> str:
    """Equal for two jobs that can share one running fleet."""
    settings = {key: value for key, value in asdict(server).items() if key not in _OF_ONE_JOB}
    played = b""
    if tasks_file is not None and any(spec.kind == Simulated() for spec in pools):
        played = hashlib.sha256(tasks_file.read_bytes()).digest()
    keys = [(spec.api_key, sorted(spec.endpoint_keys.items())) for spec in pools]
    return hashlib.sha256(repr((sorted(settings.items()), hosts, list(pools), keys, played)).encode()).hexdigest()
