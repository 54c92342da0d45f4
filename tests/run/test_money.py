"""Money: a limit holds for a whole sweep and attempts before, keeps room for what is in flight, and needs prices."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.evaluation.forecasting import Forecast
from tau2_fleet.llm.allowance import Allowance, BudgetError
from tau2_fleet.record.lock import DirectoryLock
from tau2_fleet.run.expectation import Expectation
from tau2_fleet.run.ledger import Ledger
from tau2_fleet.run.money import Purse
from tests.compare.runs import record, write_run
from tests.run.runs import run, summary
from tests.waiting import CEILING_S

PRICE = ("user_llm.price.input=100", "user_llm.price.output=100")


def purse(directory: Path, costs: list[float], expected_usd: float, limit_usd: float) -> Purse:
    """One in a sweep, of a job of ten simulations to come that were forecast to cost so much."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = {n: SimpleNamespace(cost_usd=cost, finished=True) for n, cost in enumerate(costs)}
    store: Any = SimpleNamespace(entries=entries, cost_usd=sum(costs))
    total = Forecast(expected_usd, 0.0, 2 * expected_usd)
    return Purse(directory, store, limit_usd, Expectation(10, {}, total, total, "x"), in_sweep=True)


async def begin(kept: Purse) -> int:
    """How many simulations may be in flight together."""
    gate = asyncio.Event()

    async def wait(job: Any) -> Any:
        await gate.wait()
        return SimpleNamespace(cost_by_role={"user": 1.0}, termination_reason="user_stop")

    begun: list[Any] = []
    while not kept.holds_back() and len(begun) < 50:
        begun.append(asyncio.create_task(kept.counted(wait)(None)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*begun)
    return len(begun)


def test_room_is_kept_for_what_is_in_flight(tmp_path: Path):
    assert asyncio.run(begin(purse(tmp_path / "a" / "0", [], 20.0, 9.0))) == 4, "two dollars each, as forecast"
    assert asyncio.run(begin(purse(tmp_path / "b" / "0", [1.0] * 3, 20.0, 12.0))) == 9, "one dollar each, as seen"
    assert purse(tmp_path / "c" / "0", [1.0] * 3, 20.0, 3.5).gone() == (
        "spent $3.00 of limits.max_cost_usd=3.5; the rest does not pay for another simulation"
    )
    assert purse(tmp_path / "d" / "0", [1.0] * 3, 20.0, 4.0).gone() is None


def test_what_other_jobs_of_the_sweep_spent_or_hold_counts(tmp_path: Path):
    write_run(tmp_path / "0", {"retail/1": [1.0, 1.0]})
    with (tmp_path / "0" / "simulations.jsonl").open("a") as file:
        file.write(json.dumps(record("retail/1", 0, 1.0)) + "\n" + '{"torn')
    kept = purse(tmp_path / "1", [], 20.0, 10.0)
    assert kept.ledger.others()[0] == pytest.approx(0.9), "a simulation that ran again was paid twice"
    with DirectoryLock(tmp_path / "2"):
        other = purse(tmp_path / "2", [], 20.0, 10.0)
        (tmp_path / "2" / "simulations.jsonl").touch()
        other._in_flight = 2
        other._tell_others()
        assert kept.ledger.others()[0] == pytest.approx(4.9), "two simulations of two dollars are in flight there"
        assert other.ledger.draw(7.0) == 7.0
        assert kept.ledger.draw(5.0) == 0.0, "what another has drawn is not there"
    assert kept.ledger.others()[0] == pytest.approx(0.9), "it was killed: its record counts, which is empty"
    assert kept.ledger.draw(5.0) == 5.0


def spend_all(directory: Path, number: int, spent: multiprocessing.Queue[float]) -> None:
    """A job of a sweep of ten dollars that asks until it gets nothing; five requests at once."""
    own = directory / str(number)
    luck = random.Random(number)
    with DirectoryLock(own):
        (own / "simulations.jsonl").touch()
        ledger = Ledger(own, 10.0, 0.0, in_sweep=True)
        allowance = Allowance(ledger)
        costs: list[float] = []

        async def ask() -> None:
            with suppress(BudgetError):
                while True:
                    await allowance.set_aside(0.05)
                    await asyncio.sleep(0)
                    costs.append(luck.uniform(0.01, 0.05))
                    allowance.settle(0.05, costs[-1])

        async def ask_all() -> None:
            await asyncio.gather(*(ask() for _ in range(5)))

        asyncio.run(ask_all())
        ledger.close(sum(costs))
    spent.put(sum(costs))


def test_jobs_side_by_side_spend_the_limit_together_and_no_more(tmp_path: Path):
    fork = multiprocessing.get_context("fork")
    spent: multiprocessing.Queue[float] = fork.Queue()
    jobs = [fork.Process(target=spend_all, args=(tmp_path, number, spent)) for number in range(3)]
    for job in jobs:
        job.start()
    total = sum(spent.get(timeout=CEILING_S) for _ in jobs)
    for job in jobs:
        job.join()
    assert 9.5 < total <= 10.0


class Drawn:
    """A pot of a dollar."""

    def __init__(self) -> None:
        self.left_usd = 1.0

    def draw(self, usd: float) -> float:
        drawn = usd if usd <= self.left_usd else 0.0
        self.left_usd -= drawn
        return drawn

    def refused(self, usd: float) -> None:
        assert usd > self.left_usd


def test_a_request_waits_for_what_others_give_back_and_is_refused_when_nothing_is_in_flight():
    async def scene() -> None:
        allowance = Allowance(Drawn())
        await allowance.set_aside(0.8)
        waiting = asyncio.create_task(allowance.set_aside(0.5))
        await asyncio.sleep(0)
        assert not waiting.done()
        allowance.settle(0.8, 0.3)
        await asyncio.wait_for(waiting, CEILING_S)
        allowance.settle(0.5, 0.6)
        await allowance.set_aside(0.1 - 1e-9)
        allowance.settle(0.1 - 1e-9, 0.1)
        with pytest.raises(BudgetError, match=r"a request that may cost \$0.1000 was not sent"):
            await allowance.set_aside(0.1)

    asyncio.run(scene())


def test_money_for_given_up_simulations_counts_in_the_next_attempt(tmp_path: Path):
    first = purse(tmp_path / "0", [1.0], 10.0, 5.0)
    asyncio.run(first.allowance.set_aside(2.0))
    first.allowance.settle(2.0, 1.5)
    first.close()
    again = purse(tmp_path / "0", [1.0], 10.0, 2.5)
    assert again.gone() == "spent $2.50 of limits.max_cost_usd=2.5"


def test_a_limit_ends_a_run_before_its_servers_and_spends_no_more(tmp_path: Path):
    directory = tmp_path / "run"
    words = ("experiment=smoke", "max_concurrency=4", "report=false", *PRICE)
    assert run(directory, *words, "limits.max_cost_usd=0.3").returncode == 3
    first = summary(directory)
    assert 0 < first["metrics"]["overall"]["cost_usd"] <= 0.3
    assert "limits.max_cost_usd=0.3" in first["stopped"]
    shutil.rmtree(directory / "servers")
    done = run(None, f"resume={directory}")
    assert done.returncode == 3, done.stderr
    assert "before the first simulation" in summary(directory)["stopped"]
    assert not (directory / "servers").exists()


def test_a_sweep_spends_no_more_than_its_limit(tmp_path: Path):
    done = run(
        None, "--multirun", "experiment=smoke", "seed=1,2,3", "num_tasks=2", "max_concurrency=1", "report=false",
        "limits.max_cost_usd=0.25", *PRICE, f"hydra.sweep.dir={tmp_path}", "wandb=disabled",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    ends = [summary(folder) for folder in sorted(tmp_path.glob("[0-9]*"))]
    spent = [end["metrics"].get("overall", {"cost_usd": 0.0})["cost_usd"] for end in ends]
    assert 0 < sum(spent) <= 0.25
    assert "in other jobs of the sweep" in ends[-1]["stopped"]
    assert "before the first simulation" in ends[-1]["stopped"]
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
