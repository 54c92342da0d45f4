"""Money: a limit holds for a whole sweep and attempts before, keeps room for what is in flight, and needs prices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.evaluation.forecasting import Forecast
from tau2_fleet.run.expectation import Expectation
from tau2_fleet.run.money import Purse
from tests.compare.runs import record, write_run
from tests.run.runs import run, summary

PRICE = ("user_llm.price.input=100", "user_llm.price.output=100")


def purse(directory: Path, costs: list[float], expected_usd: float, simulations: int = 10) -> Purse:
    directory.mkdir(parents=True, exist_ok=True)
    store: Any = SimpleNamespace(entries={n: SimpleNamespace(cost_usd=cost) for n, cost in enumerate(costs)})
    total = Forecast(expected_usd, 0.0, 2 * expected_usd)
    return Purse(directory, store, Expectation(simulations, {}, total, total, "x"), in_sweep=True)


async def begin(kept: Purse, left_usd: float) -> int:
    """How many simulations may be in flight together."""
    gate = asyncio.Event()

    async def wait(job: Any) -> Any:
        await gate.wait()
        return SimpleNamespace(cost_by_role={"user": 1.0})

    begun: list[Any] = []
    while not kept.holds_back(left_usd) and len(begun) < 50:
        begun.append(asyncio.create_task(kept.counted(wait)(None)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*begun)
    return len(begun)


def test_room_is_kept_for_what_is_in_flight(tmp_path: Path):
    assert asyncio.run(begin(purse(tmp_path, [], 20.0), 9.0)) == 4, "two dollars each, as forecast"
    assert asyncio.run(begin(purse(tmp_path, [1.0, 1.0, 1.0], 20.0), 9.0)) == 9, "one dollar each, as seen"
    assert asyncio.run(begin(purse(tmp_path, [], 20.0), 0.5)) == 1, "one may always be tried while something is left"


def test_what_other_jobs_of_the_sweep_spent_counts(tmp_path: Path):
    write_run(tmp_path / "0", {"retail/1": [1.0, 1.0]})
    kept = purse(tmp_path / "1", [], 1.0)
    assert kept.elsewhere_usd() == pytest.approx(0.6)
    with (tmp_path / "0" / "simulations.jsonl").open("a") as file:
        file.write(json.dumps(record("retail/1", 0, 1.0)) + "\n" + '{"torn')
    kept._siblings._looked = 0.0  # type: ignore[union-attr]
    assert kept.elsewhere_usd() == pytest.approx(0.9), "a simulation that ran again was paid twice"


def test_a_sweep_spends_no_more_than_its_limit(tmp_path: Path):
    done = run(
        None, "--multirun", "experiment=smoke", "seed=1,2,3", "num_tasks=2", "max_concurrency=1", "report=false",
        "limits.max_cost_usd=0.25", *PRICE, f"hydra.sweep.dir={tmp_path}", "wandb=disabled",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    ends = [summary(folder) for folder in sorted(tmp_path.glob("[0-9]*"))]
    spent = [end["metrics"].get("overall", {"cost_usd": 0.0})["cost_usd"] for end in ends]
    dearest = max(spent) / 2 + 1e-9
    assert 0.25 <= sum(spent) <= 0.25 + dearest
    assert "in other jobs of the sweep" in ends[-1]["stopped"]
    assert "forecast for 2 simulations" in done.stderr
    assert "dollars: $" in done.stderr


def test_a_limit_with_an_unknown_price_is_refused(tmp_path: Path):
    done = run(
        tmp_path / "run", "experiment=smoke", "user_llm=gpt-5-mini", "user_llm.model=nobodys", "limits.max_cost_usd=5"
    )
    assert done.returncode == 1
    assert "no price is known of nobodys (user)" in done.stderr
    assert "price.input" in done.stderr
    assert not (tmp_path / "run" / "simulations.jsonl").exists()
