"""What becomes of a fleet whose run cannot go on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.run.execution import Execution
from tests.fleet.support import fake_settings
from tests.waiting import CEILING_S


def test_servers_that_are_ready_before_the_domains_fail_are_let_go_of(tmp_path: Path) -> None:
    ready = threading.Event()
    fleet = Fleet([], fake_settings(tmp_path), tmp_path)

    class Begun(Execution):
        async def _fleet(self) -> Fleet:
            await fleet.start()
            asyncio.get_running_loop().call_soon(ready.set)  # once this has been returned
            return fleet

    def fail() -> None:
        ready.wait(CEILING_S)
        raise UserError("the disk is full")

    domain = SimpleNamespace(load=fail)
    plan = SimpleNamespace(selection=SimpleNamespace(tasks={"mock": []}), benchmark={"mock": domain})
    nothing: Any = None
    attempt: Any = SimpleNamespace(plan=plan)

    async def run() -> None:
        with pytest.raises(UserError, match="the disk is full"):
            await Begun(attempt, nothing, nothing, nothing)._fleet_and_domains()
        assert fleet._http is None
        assert fleet._supervisor is None

    asyncio.run(run())
