"""GPUs of other hosts, by an `nvidia-smi` there: who gets which, and what is read of them."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tau2_fleet.fleet import sampler
from tau2_fleet.fleet.far import program
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.settings import Device, HostsSettings
from tau2_fleet.telemetry.events import GpuSample
from tests.fleet.support import QUICK, fake_pool, fake_settings, heard
from tests.waiting import until

LINES = """\
a warning of the driver
0, GPU-aaaa, 5, 1000, 81920
1, GPU-bbbb, 97, 70000, 81920
2, GPU-cccc, [N/A], [N/A], [N/A]
"""


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that tell, and one that does not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'.'\n{LINES}.\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sampler, "PERIOD_S", 0.2)


def test_servers_get_the_gpus_of_their_host_and_its_readings_come_back_with_its_name(
    gpus: None, tmp_path: Path
) -> None:
    hosts = HostsSettings({"_target_": "benchmarks.hosts.Here"}, names=["h0"], python=sys.executable)
    settings = fake_settings(tmp_path, device=Device.auto, preflight=False)

    async def scenario() -> None:
        fleet = Fleet((replace(fake_pool(tmp_path, 3), min_ready=3),), settings, tmp_path, watch=QUICK, hosts=hosts)
        with heard() as events:
            try:
                await fleet.start()
                pids = [int(one.pid or 0) for one in fleet.status()]
                assert [psutil.Process(pid).environ()["CUDA_VISIBLE_DEVICES"] for pid in pids] == list("012")
                told = await until(lambda: [one for one in events if isinstance(one, GpuSample)])
            finally:
                await fleet.stop()
        read = [(one.host, one.gpu, one.utilisation, one.memory_used, one.memory_total) for one in told[:2]]
        total = 81920 * 2**20
        assert read == [("h0", 0, 0.05, 1000 * 2**20, total), ("h0", 1, 0.97, 70000 * 2**20, total)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("environment", "seen"),
    [
        ({}, [0, 1]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_GPUS": "6,7"}, [6, 7]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_a_host_tells_of_the_gpus_that_it_was_given_only(
    environment: dict[str, str], seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [gpu["index"] for gpu in program._parse_gpus(LINES.encode())] == seen
