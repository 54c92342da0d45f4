"""`hosts=ssh`: servers on machines that `ssh` reaches without a password; see docs/clusters.md."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from tau2_fleet.fleet.far.named_hosts import NamedHosts
from tau2_fleet.telemetry.secrets import without_secrets

_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ClearAllForwardings=yes"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ConnectTimeout=20"),
)


class Ssh(NamedHosts):
    """As ssh's own configuration says, with `hosts.options`."""

    name = "ssh"

    def words(self, host: str) -> list[str]:
        there = " ".join(map(shlex.quote, self.python_words()))
        return ["ssh", *_OPTIONS, *self.settings.options, host, f"exec {there}"]

    def environment(self) -> Mapping[str, str]:
        agent = {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}
        return without_secrets() | agent
