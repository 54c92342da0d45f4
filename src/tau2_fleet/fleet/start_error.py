"""The texts for servers that did not start: cause, telling log lines, exact command, log file."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tau2_fleet.fleet.diagnose import diagnose
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.server_kind import PoolSpec


class StartError(Exception):
    """A start that did not become ready; `final`: it would not another time either."""

    def __init__(self, message: str, final: bool) -> None:
        super().__init__(message)
        self.final = final


def start_error(replica: Replica, status: int | None, waited: str = "") -> StartError:
    """The error for a process that ended with `status`, or (None) lived without becoming ready (`waited` says how)."""
    process = replica.process
    assert process is not None
    if lost := process.lost():
        return StartError(f"server {replica.name} was lost with its host {replica.host}: {lost}", final=False)
    found = diagnose(process.log_text(), status)
    took = time.monotonic() - process.launched
    what = waited if status is None else f"ended with status {status} after {took:.0f} s"
    lines = [
        f"server {replica.name} {what}" + (f": {found.cause}" if found.cause else ""),
        *(f"    {line}" for line in found.lines),
        f"  command: {replica.shown_command}",
        f"  log: {replica.log}",
    ]
    return StartError("\n".join(lines), found.final and status is not None)


def running_end(replica: Replica, status: int) -> str:
    """What became of a server that had been ready: one line."""
    process = replica.process
    assert process is not None
    if lost := process.lost():
        return f"server {replica.name} was lost with its host {replica.host}: {lost}"
    cause = diagnose(process.log_text(), status).cause
    return f"server {replica.name} ended with status {status}" + (f": {cause}" if cause else "") + f" ({replica.log})"


def pool_failure(spec: PoolSpec, replicas: Sequence[Replica], ready: int) -> str:
    """Why a pool has too few servers: the first failure in full, the number of the others."""
    failures = [replica.failure for replica in replicas if replica.failure]
    wanted = f", server.min_ready={spec.min_ready}" if spec.min_ready > 1 else ""
    others = f"\n({len(failures) - 1} more failed, see their logs)" if len(failures) > 1 else ""
    first = failures[0] if failures else "no server was started"
    return f"pool {spec.name}: {ready} of {len(replicas)} server(s) became ready{wanted}. {first}{others}"
