"""What happens before the first server is launched: a vLLM asked for its flags, a model fetched from the hub."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import read_model_config
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.kinds import vllm
from tests.fleet.support import fake_pool, fake_settings, run
from tests.run.runs import assert_no_server_remains


def test_a_vllm_that_does_not_show_its_flags_in_time_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "HELP_LIMIT_S", 0.5)
    program = tmp_path / "stuck"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    fleet = Fleet([fake_pool(tmp_path)], fake_settings(tmp_path, executable=str(program)), tmp_path)
    with pytest.raises(UserError, match=rf"{program}: `serve --help=all` has not ended within 0\.5 s \(log: .*\)"):
        run(fleet.start)
    assert_no_server_remains(tmp_path)


def test_the_hubs_token_and_no_other_secret_goes_to_the_download_and_to_the_servers_of_a_hub_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"HF_TOKEN": "hf-planted", "HF_TOKEN_PATH": "/planted", "RAY_AUTH_TOKEN": "ray-planted"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = fake_settings(tmp_path)
    downloader = tmp_path / "python"  # beside the fake `vllm`: the interpreter that its environment has
    downloader.write_text("#!/bin/sh\nexec env\n")
    downloader.chmod(0o755)
    fleet = Fleet([replace(fake_pool(tmp_path, 1), model="org/model")], settings, tmp_path)

    async def environment_of_a_server() -> dict[str, str]:
        await fleet.start()
        try:
            return psutil.Process(fleet.status()[0].pid).environ()
        finally:
            await fleet.stop()

    server = asyncio.run(environment_of_a_server())
    fetched = (fleet.logs / "download-agent.log").read_text().splitlines()
    for name in given:
        needed = name.startswith("HF_")
        assert (name in server) is needed
        assert any(line.startswith(f"{name}=") for line in fetched) is needed


def test_of_two_pools_of_one_model_the_model_file_names_the_agents_servers(tmp_path: Path) -> None:
    agent, user = fake_pool(tmp_path, 2, name="agent"), fake_pool(tmp_path, 1, name="user")
    other = replace(user, name="judge", served_model_name="judge")
    fleet = Fleet([agent, user, other], fake_settings(tmp_path), tmp_path)

    async def start() -> None:
        await fleet.start()
        await fleet.stop()

    asyncio.run(start())
    file = fleet.logs / "model_config_local.json"
    urls = {pool: tuple(one.url for one in fleet.status() if one.pool == pool) for pool in ("agent", "judge")}
    assert read_model_config(file, agent.model).urls == urls["agent"]
    assert read_model_config(file, "judge").urls == urls["judge"]
