"""Pools laid on GPUs and ports, and what is said when they do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.devices import choose_devices
from tau2_fleet.fleet.gpus import Gpu, visible_devices
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.plan import plan
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device, ServerSettings

AGENT = PoolSpec("agent", Vllm(), model="/m", num=4, may_shrink=True)
USER = PoolSpec("user", Vllm(), model="/u", num=1, num_key="user_llm.pool.num")
JUDGE = PoolSpec("judge", Simulated(), model="judge", num=2, num_key="judge.pool.num")
AWAY = PoolSpec("experts", External(), endpoints=("http://other:1900",))
EIGHT = [str(number) for number in range(8)]


def test_ports_run_on_in_the_order_of_the_pools_and_each_replica_has_its_own_gpus() -> None:
    pools = [replace(AGENT, num=2, tensor_parallel_size=2), replace(USER, num=2), JUDGE, AWAY]
    found = plan(pools, ServerSettings(start_port=1900), EIGHT)
    assert [(one.name, one.port, one.devices) for one in found.placements] == [
        ("agent/0", 1900, ("0", "1")),
        ("agent/1", 1901, ("2", "3")),
        ("user/0", 1902, ("4",)),
        ("user/1", 1903, ("5",)),
        ("judge/0", 1904, ()),
        ("judge/1", 1905, ()),
    ]
    assert found.warnings == ()


def test_the_agents_pool_shrinks_to_what_the_gpus_hold_with_a_warning() -> None:
    found = plan([AGENT, USER], ServerSettings(), ["0", "1", "2"])
    assert [one.name for one in found.placements] == ["agent/0", "agent/1", "user/0"]
    assert [one.port for one in found.placements] == [1900, 1901, 1902]
    assert found.warnings == (
        "server.num=4 needs 5 GPUs in all (server.num=4 x 1, user_llm.pool.num=1 x 1), there are 3: "
        "2 replica(s) of pool agent are launched",
    )


def test_strict_makes_that_an_error() -> None:
    with pytest.raises(UserError, match=r"needs 5 GPUs .*server\.num=4 x 1, user_llm.*there are 3 \(server\.strict"):
        plan([AGENT, USER], ServerSettings(strict=True), ["0", "1", "2"])


def test_pools_that_do_not_fit_even_when_shrunk_are_an_error_that_names_the_keys() -> None:
    with pytest.raises(UserError, match=r"needs 6 GPUs \(server\.num=4 x 1, user_llm\.pool\.num=2 x 1\), there are 2"):
        plan([AGENT, replace(USER, num=2)], ServerSettings(), ["0", "1"])


def test_a_replica_larger_than_the_machine_is_an_error() -> None:
    with pytest.raises(UserError, match=r"pool agent: a replica needs 4 GPU\(s\).*there are 2.*tensor_parallel_size"):
        plan([replace(AGENT, tensor_parallel_size=4)], ServerSettings(), ["0", "1"])


def test_no_gpu_at_all_names_the_ways_out() -> None:
    with pytest.raises(UserError, match=r"there are 0: set server\.device=cpu .*server=external or server=simulated"):
        plan([AGENT], ServerSettings(), [])


def test_sizes_given_as_flags_count() -> None:
    spec = replace(AGENT, num=1, extra_args="--tensor_parallel_size 2 -pp=2")
    assert plan([spec], ServerSettings(), EIGHT).placements[0].devices == ("0", "1", "2", "3")


def test_a_gpu_named_twice_holds_two_replicas_but_not_one_of_two() -> None:
    found = plan([replace(AGENT, num=4)], ServerSettings(), ["0", "0", "1", "1"])
    assert [one.devices for one in found.placements] == [("0",), ("0",), ("1",), ("1",)]
    assert {one.sharing for one in found.placements} == {2}
    assert [one.sharing for one in plan([AGENT], ServerSettings(), ["0", "0", "1"]).placements] == [2, 2, 1]
    pair = replace(AGENT, num=2, tensor_parallel_size=2)
    assert [one.devices for one in plan([pair], ServerSettings(), ["0", "0", "1", "1"]).placements] == [("0", "1")] * 2


def test_on_the_cpu_nothing_is_limited_by_gpus() -> None:
    assert [one.devices for one in plan([AGENT, USER], ServerSettings(), None).placements] == [()] * 5


@pytest.mark.parametrize(
    ("pool", "settings", "said"),
    [
        (replace(AGENT, num=0), ServerSettings(), "server.num=0"),
        (replace(AGENT, min_ready=5), ServerSettings(), "server.min_ready=5 cannot be met"),
        (AGENT, ServerSettings(start_port=65534), "65535 is the last"),
        (replace(AGENT, extra_args='--x "y'), ServerSettings(), "extra_args of pool agent cannot be read"),
        (replace(AGENT, extra_args="--port 80"), ServerSettings(), "--port is not for extra_args, use server.start"),
        (replace(AGENT, extra_args="--api_key=x"), ServerSettings(), "--api-key is not for extra_args"),
    ],
)  # fmt: skip
def test_impossible_numbers_and_flags_are_named(pool: PoolSpec, settings: ServerSettings, said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        plan([pool], settings, EIGHT)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4), st.integers(0, 12))
def test_a_plan_never_gives_one_gpu_to_two(sizes: list[tuple[int, int]], gpus: int) -> None:
    pools = [
        PoolSpec(f"p{n}", Vllm(), model="m", num=num, tensor_parallel_size=tp, may_shrink=n == 0)
        for n, (num, tp) in enumerate(sizes)
    ]
    devices = [str(number) for number in range(gpus)]
    try:
        found = plan(pools, ServerSettings(), devices)
    except UserError:
        assert sum(tp * (num if n else 1) for n, (num, tp) in enumerate(sizes)) > gpus
        return
    given_out = [device for one in found.placements for device in one.devices]
    assert len(given_out) == len(set(given_out))
    assert all(len(one.devices) == one.pool.tensor_parallel_size for one in found.placements)
    assert {one.pool.name for one in found.placements} == {spec.name for spec in pools}


def test_the_devices_are_those_that_the_user_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Gpu(0, "GPU-a", "H200", 100, 0)
    divided = Gpu(1, "GPU-b", "H200", 100, 0, ("MIG-1", "MIG-2"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices([whole, divided]) == ["0", "MIG-1", "MIG-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-a,-1,2")
    assert visible_devices([whole, divided]) == ["3", "GPU-a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices([whole, divided]) == []


def test_named_gpus_are_taken_in_the_place_of_the_visible_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there = [Gpu(n, f"GPU-{n}", "H200", 2**37, 2**36 if n == 3 else 0) for n in range(4)]
    monkeypatch.setattr("tau2_fleet.fleet.devices.gpus", lambda: there)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose_devices(ServerSettings(), "vllm") == ["0"]
    assert not caplog.messages
    assert choose_devices(ServerSettings(gpu_ids=[2, 3]), "vllm") == ["2", "3"]
    assert caplog.messages == ["GPU 3 (H200) has 64 of 128 GiB in use already"]
    assert choose_devices(ServerSettings(device=Device.cpu), "vllm") is None
    with pytest.raises(UserError, match=r"server\.gpu_ids=\[2, 4\]: there is no GPU 4 \(there are 0 to 3\)"):
        choose_devices(ServerSettings(gpu_ids=[2, 4]), "vllm")
