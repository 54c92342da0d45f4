"""The command line of a simulated server; the supervisor starts it, with the key in VLLM_API_KEY."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import sys
from functools import partial
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.simserver.latency import load_profile
from tau2_fleet.simserver.options import parse_options
from tau2_fleet.simserver.scripts import read_script_file
from tau2_fleet.simserver.server import Server, serve

ROLES = ("agent", "user", "judge", "expert")


def main() -> None:
    """Run one server until it is told to stop; exit status 1 and one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m tau2_fleet.simserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--model", required=True, help="the name under which the model is served")
    parser.add_argument("--tasks", type=Path, required=True, help="the script file of write_script_file")
    parser.add_argument("--role-pool", default="agent", help="the pool; tells the role of requests without session")
    parser.add_argument("--options", default="{}", help="JSON object, see options.py")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(asctime)s %(message)s", stream=sys.stderr)
    try:
        options = parse_options(arguments.options)
        make = partial(
            Server,
            arguments.model,
            read_script_file(arguments.tasks),
            role=_role(arguments.role_pool),
            options=options,
            latency=load_profile(options.latency) if options.latency else None,
            api_key=os.environ.get("VLLM_API_KEY"),
            replica=f"{arguments.role_pool}:{arguments.port}",
        )
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    _allow_many_connections()
    # What has been loaded stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        asyncio.run(serve(make, arguments.host, arguments.port))
    except OSError as error:
        sys.exit(f"error: cannot listen on {arguments.host}:{arguments.port}: {error}")


def _role(pool: str) -> str:
    return next((role for role in ROLES if pool.startswith(role)), "agent")


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
