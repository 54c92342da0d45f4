"""`tau2-fleet serve key=value ...`: the fleet of a configuration alone, until Ctrl-C.

It takes what `tau2-fleet run` takes, prints the endpoints, and leaves in its directory a `model_config_local.json` and
the key (mode 0600); another run uses them with `server=external`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.invocation import typed
from tau2_fleet.paths import use_scratch_dir

if TYPE_CHECKING:
    from tau2_fleet.fleet.fleet import Fleet
    from tau2_fleet.fleet.lease import FleetLease
    from tau2_fleet.fleet.server_kind import PoolSpec
    from tau2_fleet.run.plan import RunPlan
    from tau2_fleet.telemetry.events import Event

KEY_FILE = "api_key"
_PLAIN = re.compile(r"[\w./:@+-]+")
_RUN_DIR = "hydra.run.dir="
_HELP = """tau2-fleet serve key=value ...

Starts the servers that `tau2-fleet run` with the same arguments would start, prints their endpoints and keeps
them running until Ctrl-C. Their directory (hydra.run.dir=...) gets model_config_local.json and the key. A run
with the same arguments uses them, if these are added:
  server=external server.model_config=DIR/model_config_local.json server.api_key_file=DIR/api_key"""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 ended by a signal, as it is meant to be, 1 the fleet could not be had."""
    from tau2_fleet.display.console import complain, out

    if any(argument in ("-h", "--help") for argument in arguments):
        out.print(_HELP, markup=False)
        return ExitStatus.FINISHED
    try:
        _serve(arguments)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    return ExitStatus.FINISHED


def _serve(arguments: Sequence[str]) -> None:
    from tau2_fleet.config import load_config
    from tau2_fleet.config.command_line import read_dotenv
    from tau2_fleet.config.compose import compose
    from tau2_fleet.fleet.lease import FleetLease
    from tau2_fleet.record.lock import DirectoryLock
    from tau2_fleet.run.directory import register_resolvers
    from tau2_fleet.run.interrupts import ended_like_ctrl_c
    from tau2_fleet.run.plan import plan_run
    from tau2_fleet.telemetry.logs import setup as logs_of_run

    for argument in arguments:
        if argument.startswith("-"):
            raise UserError(f"{argument}: tau2-fleet serve takes keys (key=value) and --help only")
    with ended_like_ctrl_c():
        read_dotenv()
        stamp = register_resolvers(arguments)[0].relative_to("multirun")
        given = [argument.removeprefix(_RUN_DIR) for argument in arguments if argument.startswith(_RUN_DIR)]
        directory = Path(given[-1] if given else Path("outputs") / stamp).absolute()
        config = load_config(compose([argument for argument in arguments if not argument.startswith(_RUN_DIR)]))
        use_scratch_dir(config.scratch_dir)
        plan = plan_run(config)
        with (
            DirectoryLock(directory),
            logs_of_run(directory, config.log_level.number),
            FleetLease() as lease,
        ):
            asyncio.run(_ServedFleet(plan, directory, lease, _for_a_run(arguments)).run())


class _ServedFleet:
    """One fleet from its start to the signal that ends it."""

    def __init__(self, plan: RunPlan, directory: Path, lease: FleetLease, given: Sequence[str]) -> None:
        """`given`: settings of this command line that a run with these servers needs too."""
        self._plan = plan
        self._given = given
        self._directory = directory
        self._lease = lease

    async def run(self) -> None:
        from tau2_fleet.display.console import err
        from tau2_fleet.fleet.limits import most_for_files, raise_open_files
        from tau2_fleet.run.interrupts import Interrupts
        from tau2_fleet.telemetry.events import EventBus

        specs = self._pools()
        config = self._plan.config
        most = config.most_in_flight
        raise_open_files(most_for_files(most) if config.auto_concurrency else most)
        interrupts = Interrupts()
        fleet: Fleet | None = None
        bus = EventBus()
        bus.subscribe(_show_state)
        with bus.in_use(), interrupts.listening():
            try:
                fleet = await self._lease.fleet(
                    specs, config.server, self._directory, self._tasks_file(specs), config.hosts
                )
                self._announce(fleet, specs)
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                if not interrupts.absorb(error):
                    raise
            err.print("stopping the servers")
            if fleet is not None:
                await fleet.detach()

    def _pools(self) -> list[PoolSpec]:
        """The pools that the configuration has servers launched for."""
        launched = [spec for spec in self._plan.pools if spec.kind.launched]
        if not launched:
            raise UserError("nothing to serve: with server=external and no local models there is nothing to launch")
        return launched

    def _tasks_file(self, specs: Sequence[PoolSpec]) -> Path | None:
        """What simulated servers play: all tasks of the domains' task sets, whichever of them a run takes."""
        from tau2_fleet.run.plan import write_played_tasks

        chosen = self._plan.config.domain
        tasks = {name: domain.tasks(chosen[name].tasks) for name, domain in self._plan.benchmark.items()}
        return write_played_tasks(self._directory / "servers", specs, tasks)

    def _announce(self, fleet: Fleet, specs: Sequence[PoolSpec]) -> None:
        """Write the two files and print how to use them."""
        from tau2_fleet.config.quoting import shell_word
        from tau2_fleet.display.console import out
        from tau2_fleet.fleet.external_servers import MODEL_CONFIG_FILE, write_model_config
        from tau2_fleet.fleet.kinds.simulated import Simulated
        from tau2_fleet.fleet.pools import AGENT_POOL
        from tau2_fleet.fleet.vllm_command import served_name

        config_file, key_file = self._directory / MODEL_CONFIG_FILE, self._directory / KEY_FILE
        write_model_config(config_file, fleet.served(), key_file)
        key_file.unlink(missing_ok=True)
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(fleet.key + "\n")
        statuses = fleet.status()
        for spec in specs:
            own = [status for status in statuses if status.pool == spec.name]
            out.print(f"pool {spec.name} ({spec.kind.name}): {spec.model}", markup=False)
            for status in own:
                out.print(f"  {status.url}  {status.phase}", markup=False)
        lines = [" ".join([typed("run"), *map(shell_word, self._given)])]
        for spec in specs:
            if spec.name == AGENT_POOL:
                words = [_setting("server.model_config", config_file), _setting("server.api_key_file", key_file)]
                if len(fleet.served()) > 1:
                    words.append(_setting("agent.model", str(served_name(spec))))
                lines.append(" ".join(["server=external", *words]))
            elif spec.kind != Simulated():  # simulated models always get servers of their run's own
                key = spec.num_key.removesuffix(".num")
                urls = ",".join(status.url for status in statuses if status.pool == spec.name)
                endpoints = shlex.quote(f"{key}.endpoints=[{urls}]")
                lines.append(f"{endpoints} {_setting(f'{key}.api_key_file', key_file)}")
        if len(lines) > 1:
            out.print(
                "\nFor a run (Ctrl-C here ends the servers):\n  " + " \\\n    ".join(lines),
                markup=False,
                soft_wrap=True,
            )


def _for_a_run(arguments: Sequence[str]) -> list[str]:
    """The settings that are not about the servers themselves, which a run names by their addresses."""
    names = [(argument, argument.lstrip("+~").partition("=")[0]) for argument in arguments]
    return [
        argument
        for argument, name in names
        if not re.match(r"(server|hydra)([./]|$)", name) and name != "agent.model" and ".pool." not in name
    ]


def _setting(key: str, value: str | Path) -> str:
    """`key=value` as it is typed: quoted for Hydra where need be, then for the shell."""
    from tau2_fleet.config.quoting import quoted

    text = str(value)
    return shlex.quote(f"{key}={text if _PLAIN.fullmatch(text) else quoted(text)}")


def _show_state(event: Event) -> None:
    """One line for each change of a server."""
    from tau2_fleet.display.console import tell
    from tau2_fleet.telemetry.events import ReplicaState

    if isinstance(event, ReplicaState):
        detail = f": {event.detail}" if event.detail else ""
        tell(f"{event.replica} {event.state}{detail}")
