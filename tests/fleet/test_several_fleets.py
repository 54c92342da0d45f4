"""Fleets of other machines in one run, each with its own key, at addresses that work from elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.addresses import reachable
from tau2_fleet.fleet.external_servers import external_replicas, read_model_config
from tau2_fleet.fleet.pools import LocalModel, pool_specs
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.llm.settings import PoolSettings
from tests.fleet.test_serve import SMOKE, serve
from tests.run.runs import records, run
from tests.waiting import CEILING_S

Fleets = dict[str, Path]


def started(directory: Path, host: str) -> tuple[subprocess.Popen[str], str]:
    """A served fleet that is ready, and what it has printed."""
    process = serve(*SMOKE, "server.start_port=0", f"server.host={host}", f"hydra.run.dir={directory}")
    assert process.stdout is not None
    printed = ""
    while "server.model_config=" not in printed:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        printed += line
    return process, printed


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Two fleets, of other addresses than the usual one, that know nothing of each other; their directories by host."""
    folder = tmp_path_factory.mktemp("fleets")
    hosts = {"127.0.0.2": folder / "a", reachable("0.0.0.0"): folder / "b"}
    running = []
    try:
        for host, directory in hosts.items():
            running.append(started(directory, host)[0])
        yield hosts
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=CEILING_S)


def entries(directory: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((directory / "model_config_local.json").read_text())["agent"]
    return found


def joined(fleets: Fleets, path: Path) -> Path:
    path.write_text(json.dumps({"agent": [entry for folder in fleets.values() for entry in entries(folder)]}))
    return path


def external(config: Path) -> tuple[str, ...]:
    return "server=external", f"server.model_config={config}", "server.start_port=0"


def test_what_a_fleet_advertises_is_where_it_listens_and_nothing_else_is_open(fleets: Fleets) -> None:
    for host, directory in fleets.items():
        assert [entry["ip_addr"] for entry in entries(directory)] == [host, host]
        ports = {int(entry["port"]) for entry in entries(directory)}
        connections = psutil.net_connections("tcp")
        listening = {tuple(where.laddr) for where in connections if where.status == psutil.CONN_LISTEN}
        assert {address for address, port in listening if port in ports} == {host}


def test_a_run_uses_the_servers_of_both_fleets_each_with_its_own_key(fleets: Fleets, tmp_path: Path) -> None:
    keys = {(folder / "api_key").read_text() for folder in fleets.values()}
    assert len(keys) == 2
    config = joined(fleets, tmp_path / "both.json")
    done = run(tmp_path / "run", "experiment=smoke", *external(config), "wandb=disabled")
    assert done.returncode == 0, done.stderr
    used = {call["replica"] for record in records(tmp_path / "run") for call in record["calls"]}
    assert {name for name in used if name.startswith("agent/")} == {f"agent/{index}" for index in range(4)}
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert not [key for key in keys if key.strip().encode() in written]


def test_a_key_of_another_fleet_is_refused_by_the_address_that_refuses_it(fleets: Fleets, tmp_path: Path) -> None:
    config = joined(fleets, tmp_path / "both.json")
    first, second = (str(folder / "api_key") for folder in fleets.values())
    config.write_text(config.read_text().replace(second, first))
    done = run(
        tmp_path / "run", "experiment=smoke", *external(config), "wandb=disabled",
        "server.min_ready=4",
    )  # fmt: skip
    assert done.returncode == 1
    assert f"http://{list(fleets)[1]}:" in done.stderr
    assert "refuses the key" in done.stderr


def test_all_interfaces_are_opened_only_when_said_and_never_advertised(tmp_path: Path) -> None:
    process, printed = started(tmp_path, "0.0.0.0")
    try:
        text = printed + (tmp_path / "model_config_local.json").read_text()
        text += (tmp_path / "servers" / "model_config_local.json").read_text()
        assert "0.0.0.0" not in text
        assert "127.0.0.1" not in text
        urls = re.findall(r"http://([\d.]+):(\d+)", printed)
        for address, port in urls:
            with socket.create_connection((address, int(port)), CEILING_S):
                pass
        assert len(urls) >= 2
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=CEILING_S)
    assert "server.host=0.0.0.0: whoever reaches this machine reaches the servers" in errors


def test_pools_of_other_models_take_servers_of_several_fleets_too(tmp_path: Path) -> None:
    (tmp_path / "k1").write_text("key-one\n")
    (tmp_path / "k2").write_text("key-two\n")
    content: dict[str, Any] = {
        "judge": [
            {"ip_addr": "10.0.0.1", "port": 1900, "key_file": "k1"},
            {"ip_addr": "10.0.0.2", "port": "1900", "key_file": str(tmp_path / "k2")},
            {"ip_addr": "10.0.0.3", "port": "1900"},
        ]
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "rest").write_text("key-of-the-rest\n")
    pool = PoolSettings("judge", model_config=str(tmp_path / "config.json"), api_key_file=str(tmp_path / "rest"))
    server = ServerSettings(kind="external", endpoints=["http://10.0.0.9:1"])
    specs = pool_specs(server, "agent", False, [LocalModel("judge", False, "judge", pool)])
    found = {replica.base_url: replica.key for replica in external_replicas(specs) if replica.pool == "judge"}
    assert found == {
        "http://10.0.0.1:1900": "key-one",
        "http://10.0.0.2:1900": "key-two",
        "http://10.0.0.3:1900": "key-of-the-rest",
    }
    assert "key-one" not in repr(specs)


@pytest.mark.parametrize(
    ("key_file", "words"), [("nowhere", "key_file nowhere cannot be read"), (7, "must be the path of a file, not 7"),
                            ("two", "key_file two must hold one key and nothing else")],
)  # fmt: skip
def test_a_key_file_that_is_none_is_named(tmp_path: Path, key_file: object, words: str) -> None:
    (tmp_path / "two").write_text("one two\n")
    entry = {"ip_addr": "10.0.0.1", "port": 1, "key_file": key_file}
    (tmp_path / "config.json").write_text(json.dumps({"m": [entry]}))
    with pytest.raises(UserError, match=words):
        read_model_config(tmp_path / "config.json", None)
