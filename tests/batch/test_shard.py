"""Parts of a schedule: every simulation is in exactly one, on every machine."""

from __future__ import annotations

import pytest

from tau2_fleet.batch.shard import Shard, shard_of
from tau2_fleet.record.line import SimulationKey

KEYS = [
    SimulationKey(domain, str(task), trial)
    for domain in ("retail", "airline")
    for task in range(100)
    for trial in range(4)
]


@pytest.mark.parametrize("count", [1, 2, 16, 1000])
def test_every_simulation_is_in_exactly_one_part(count: int) -> None:
    for key in KEYS:
        assert sum(Shard(index, count).takes(key) for index in range(count)) == 1


def test_parts_never_move_from_one_version_to_the_next() -> None:
    found = [shard_of(key, 16) for key in KEYS[:6]]
    assert found == [0, 5, 7, 4, 6, 0]
    assert shard_of(SimulationKey("retail", "[odd] \udcff|é", 3), 16) == 9


def test_parts_are_about_equal_in_domains_and_trials() -> None:
    sizes = [sum(Shard(index, 8).takes(key) for key in KEYS) for index in range(8)]
    assert min(sizes) > 70
    assert max(sizes) < 130


@pytest.mark.parametrize(("total", "count"), [(10, 3), (16, 16), (17, 16), (100, 7)])
def test_parts_share_a_number_without_loss(total: int, count: int) -> None:
    shares = [Shard(index, count).share(total) for index in range(count)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
