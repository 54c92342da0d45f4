"""Recorded runs get the rewards that the evaluators of two versions of the benchmark gave them."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path

import pytest

from tau2_fleet.analysis.score_again import Ways, alone, score_again
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.benchmark.version import find_version
from tau2_fleet.evaluation.verdicts import read_verdicts
from tau2_fleet.record.results_file import read_results
from tests.benchmark.data_101 import folder, unpacked

FILES = ("mock", "airline", "retail", "telecom", "telecom-workflow", "telecom_solo")


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_run_gets_the_rewards_of_both_versions(name: str, tmp_path: Path) -> None:
    place = unpacked(tmp_path)
    new = find_version(BenchmarkSettings("tau2-1.0.1", str(folder() / "data")))
    old = find_version()
    results, answers = read_results(place / f"{name}.json"), read_verdicts(place / f"{name}.expected.jsonl")
    expected = [json.loads(line) for line in (place / f"{name}.expected.jsonl").read_text().splitlines()]

    async def differing() -> list[str]:
        found = []
        for simulation, wanted in zip(results.simulations(), expected, strict=True):
            package = wanted["v26_3"]
            before = package.get("all_with_nl_assertions") or package.get("all") or package["load"]
            for version, strict, one in (
                (new, True, wanted["v1_0_1"]["strict"]),
                (new, False, wanted["v1_0_1"]["lenient"]),
                (old, True, before),
            ):
                again = {**copy.deepcopy(simulation), "reward_info": None}
                domain = version.load_domain(results.domain)
                solo = results.solo or alone(again)
                scored = await score_again(domain, results.tasks, again, solo=solo, ways=Ways(strict, answers))
                if again["reward_info"] != one.get("reward_info"):
                    found.append(f"{wanted['kind']} {scored.name} {version.name} strict={strict}: {scored.detail}")
        return found

    found = asyncio.run(differing())
    print(f"{name}: {3 * len(expected) - len(found)} of {3 * len(expected)} rewards agree")
    assert not found
