"""What happens before the first server is launched: a vLLM asked for its flags, a model fetched from the hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from src.errors import UserError
from src.fleet import prepare
from src.fleet.fleet import Fleet
from tests.fleet.support import fake_pool, fake_settings, gone


def test_a_vllm_that_does_not_show_its_flags_in_time_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "HELP_LIMIT_S", 0.5)
    program = tmp_path / "stuck"
    program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    program.chmod(0o755)
    fleet = Fleet([fake_pool(tmp_path)], fake_settings(tmp_path, executable=str(program)), tmp_path)

    async def start() -> None:
        async with asyncio.timeout(20):
            await fleet.start()

    with pytest.raises(UserError, match=rf"{program}: `serve --help=all` has not ended within 0\.5 s \(log: .*\)"):
        asyncio.run(start())
    [pid] = (tmp_path / "pids").read_text().split()
    assert gone(int(pid))
