"""A run whose models have ended is refused before a server starts; a plain one starts; what a provider says rules."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.config import Config, compose, load_config
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.lease import FleetLease
from tau2_fleet.run import experiment
from tau2_fleet.run.directory import save_composition
from tau2_fleet.run.job_context import JobContext
from tau2_fleet.run.resume import check_resumable
from tests.llm.serving import serving
from tests.llm.test_model_files import RULES, provider
from tests.run.runs import records, summary

AFTER: Callable[[], date] = lambda: date(2026, 12, 12)  # noqa: E731
PLAIN = ("agent.model=/tmp", "server=simulated", "server.start_port=0", "server.num=1", "wandb=disabled")
FEW = ("domain=mock", "task_ids=[create_task_1]")

pytestmark = pytest.mark.usefixtures("no_keys")


@contextmanager
def standing(shutdown_date: str | None) -> Iterator[tuple[str, list[Any]]]:
    """OpenAI as far as gpt-6.1-sol and gpt-5 need it, in a thread of its own: its URL and what arrived."""
    seen: list[Any] = []
    stop, ready = threading.Event(), threading.Event()
    url = ""
    listed = {"data": [{"id": name, "shutdown_date": shutdown_date} for name in ("gpt-6.1-sol", "gpt-5")]}

    async def run() -> None:
        nonlocal url
        async with serving(provider(RULES["gpt-6.1-sol"], seen, text="###STOP###"), models=listed) as server:
            url = f"{server.url}/v1"
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield url, seen
    finally:
        stop.set()
        thread.join()


def start(run_dir: Path, *overrides: str) -> int:
    given = [*PLAIN, *overrides]
    return begin_job(load_config(compose(given)), run_dir, given)


def begin_job(config: Config, run_dir: Path, given: list[str]) -> int:
    plan = experiment.prepare(config, run_dir)
    (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
    with FleetLease() as lease:
        return experiment.run(plan, JobContext(run_dir, given, lease, run_dir), today=AFTER).exit_status


def test_a_plain_run_starts_after_the_scripts_models_have_ended(tmp_path: Path) -> None:
    """With the default customer and experts, asked as OpenAI wants them; the customer stops at once."""
    with standing(None) as (url, seen):
        remote = [f"user_llm.base_url={url}", *(f"experts.expert_{n}.llm.base_url={url}" for n in (1, 2))]
        status = start(tmp_path / "run", *FEW, *remote, "experts.expert_3=null")
    assert status == 0
    [record] = records(tmp_path / "run")
    assert record["termination_reason"] == "user_stop"
    assert {call["returned_model"] for call in record["calls"] if call["role"] == "user"} == {"gpt-6.1-sol"}
    told = summary(tmp_path / "run")
    assert told["returned_models"]["user"] == {"gpt-6.1-sol": {"gpt-6.1-sol": 1}}
    assert told["reference"]["name"] == "official"
    assert {path for path, _ in seen} == {"/v1/responses"}
    with_tools = [bool(body.get("tools")) for _, body in seen]
    assert any(with_tools)


def test_the_scripts_setting_is_refused_in_two_lines_before_any_server_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        start(tmp_path / "run", "experiment=official", "experts.expert_3=null", "num_tasks=1")
    first, second = str(caught.value).splitlines()
    assert first.startswith("experiment=official cannot be run any longer: gpt-5 (user, expert-1) ended on 2026-12-11")
    assert "leave out experiment=official" in second
    assert not (tmp_path / "run" / "servers").exists()


@pytest.mark.parametrize(("told", "refused"), [("2026-12-11", True), ("2027-03-01", False), (None, False)])
def test_the_day_that_the_provider_states_rules(tmp_path: Path, told: str | None, refused: bool) -> None:
    """The file of gpt-6.1-sol says that no end is announced."""
    with standing(told) as (url, _):
        given = (*FEW, "experts=none", f"user_llm.base_url={url}")
        if not refused:
            assert start(tmp_path / "run", *given) == 0
            return
        with pytest.raises(UserError, match=r"gpt-6\.1-sol \(user\) ended on 2026-12-11 \(the provider's list"):
            start(tmp_path / "run", *given)
    assert not (tmp_path / "run" / "servers").exists()


def begin(run_dir: Path, *overrides: str) -> list[str]:
    """What a run leaves at its start."""
    begun = [*PLAIN, *FEW, *overrides]
    tree = compose(begun, with_hydra=True)
    tree.hydra.overrides.task = begun
    save_composition(compose(begun), tree, run_dir)
    return begun


def test_a_resumed_run_says_that_its_models_have_ended_since(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    begun = begin(run_dir, "user_llm=gpt-5", "experts=none")
    config = load_config(compose([*begun, f"resume={run_dir}"]))
    check_resumable(config, run_dir, AFTER)
    with pytest.raises(UserError) as caught:
        begin_job(config, run_dir, begun)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{run_dir} was begun with models that have ended since: gpt-5 (user) ended on 2026-12-11")
    assert "user_llm=gpt-6.1-sol" in second
    assert "resume_force=true" in second


def test_a_resume_with_other_models_says_so_only_where_those_of_before_have_ended(tmp_path: Path) -> None:
    """As after the plain defaults took living models."""
    run_dir = tmp_path / "run"
    begin(run_dir, "user_llm=gpt-5", "experts=none")
    plain = load_config(compose([*PLAIN, *FEW, "experts=none", f"resume={run_dir}"]))
    with pytest.raises(UserError, match=r"user_llm\.model \(gpt-5 then") as caught:
        check_resumable(plain, run_dir, AFTER)
    assert "Models that it was begun with have ended since: gpt-5 on 2026-12-11." in str(caught.value)
    with pytest.raises(UserError) as caught:
        check_resumable(plain, run_dir, lambda: date(2026, 12, 11))
    assert "ended" not in str(caught.value)
