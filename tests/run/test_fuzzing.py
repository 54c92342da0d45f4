"""Whatever a file from outside holds: it is used as far as it can be, or refused in words; nothing else is raised."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tau2_fleet.analysis import rescore, show
from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.external_servers import read_model_config
from tau2_fleet.record.results import ResultsInfo, RoleInfo, write_results
from tau2_fleet.record.store import Store
from tau2_fleet.run.outcome import judge_outcome, write_summary
from tau2_fleet.run.selection import select_tasks
from tau2_fleet.simserver.scripts import read_script_file, write_script_file
from tau2_fleet.simulation.settings import AgentMode
from tests.run.runs import run

QUICK = settings(max_examples=150, suppress_health_check=list(HealthCheck))

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "user", "assistant", "\x00", "\ud800", "../x", "create_task", 2**70, -1, float("inf")])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
DELETED = object()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def changed(value: Any, changes: list[tuple[int, Any]]) -> Any:
    """The value with parts of it replaced or taken away; numbers choose the places."""
    value = copy.deepcopy(value)
    for number, new in changes:
        found = list(places(value))
        if not found:
            break
        *way, last = found[number % len(found)]
        holder = value
        for key in way:
            holder = holder[key]
        if new is DELETED:
            del holder[last]
        else:
            holder[last] = new
    return value


NESTED = b"[" * 200_000
"""Deeper than Python's recursion goes."""

CHANGES = st.lists(st.tuples(st.integers(0, 2**20), ANYTHING | st.just(DELETED)), min_size=1, max_size=3)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a few simulations in it."""
    run_dir = tmp_path_factory.mktemp("fuzzing") / "run"
    process = run(run_dir, "experiment=smoke")
    assert process.returncode == 0, process.stderr
    return run_dir


def use_tasks(path: Path, folder: Path) -> None:
    """All that happens to a task before its first message."""
    domain = load_domain("mock")
    selection = select_tasks({"mock": domain}, {"mock": str(path)}, task_ids={"mock": None}, mode=AgentMode.llm)
    schedule = make_schedule(selection.tasks, seed=300, num_trials=1)
    selection.needing_judge(True)
    write_script_file(folder / "scripts.json", selection.tasks)
    read_script_file(folder / "scripts.json")
    for task in schedule.tasks.values():
        environment = domain.environment(task)
        asyncio.run(environment.final_state())


MOCK_TASKS = [
    task.model_dump(mode="json")
    for task in load_domain("mock").tasks("base")
    if task.id in ("create_task_1_with_env_assertions", "update_task_with_history_and_env_assertions")
]


@QUICK
@example(NESTED)
@given(st.binary(max_size=40) | ANYTHING | CHANGES.map(lambda changes: changed(MOCK_TASKS, changes)))
def test_task_files(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tasks.json")
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        with contextlib.suppress(UserError):
            use_tasks(path, Path(folder))


@QUICK
@given(data=st.data())
def test_results_files(finished: Path, data: st.DataObject) -> None:
    results = json.loads((finished / "mock.json").read_text())
    results["simulations"] = results["simulations"][:2]
    results["tasks"] = [
        task for task in results["tasks"] if task["id"] in {s["task_id"] for s in results["simulations"]}
    ]
    content = data.draw(st.binary(max_size=40) | ANYTHING | CHANGES.map(lambda changes: changed(results, changes)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        with contextlib.suppress(UserError):
            asyncio.run(rescore.rescore(path, Path(folder, "again.json")))


@QUICK
@given(data=st.data())
def test_records(finished: Path, data: st.DataObject) -> None:
    """As `rescore` reads them, and as a resumed run takes them up."""
    with damaged(finished, data) as run_dir:
        with contextlib.suppress(UserError):
            asyncio.run(rescore.rescore(run_dir / "simulations.jsonl", run_dir / "again.jsonl"))
        take_up(run_dir)


@settings(QUICK, max_examples=40)
@given(data=st.data())
def test_shown_records(finished: Path, data: st.DataObject) -> None:
    with damaged(finished, data) as run_dir, contextlib.redirect_stdout(io.StringIO()) as printed:
        assert show.main([str(run_dir)]) == 0
        assert show.main([str(run_dir), "--failed"]) == 0
        assert show.main([str(run_dir), "--prompts", "--full"]) == 0
    assert "mock/" in printed.getvalue()


@contextlib.contextmanager
def damaged(finished: Path, data: st.DataObject) -> Iterator[Path]:
    """A run directory of two records, the first of which is not as it was."""
    first, second = (finished / "simulations.jsonl").read_bytes().splitlines()[:2]
    record = json.loads(first)
    content = data.draw(st.binary(max_size=40) | ANYTHING | CHANGES.map(lambda changes: changed(record, changes)))
    with tempfile.TemporaryDirectory() as folder:
        raw = content if isinstance(content, bytes) else as_bytes(content)
        Path(folder, "simulations.jsonl").write_bytes(raw + b"\n" + second + b"\n")
        yield Path(folder)


def take_up(run_dir: Path) -> None:
    """What a resumed run does with the record."""
    domain = load_domain("mock")
    tasks = domain.tasks("base")
    role = RoleInfo("x", None, {})
    info = ResultsInfo("", 1, 200, 10, 300, role, role, "mock", "")
    with Store(run_dir) as store:
        schedule = make_schedule({"mock": tasks}, seed=300, num_trials=1).without(store.finished)
        outcome = judge_outcome(schedule, store)
        write_summary(run_dir / "summary.json", outcome, {})
        write_results(run_dir / "mock.json", info, map(domain.as_written, tasks), store.records("mock"))
        assert len(json.loads((run_dir / "mock.json").read_bytes())["simulations"]) >= 1
        assert outcome.inventory["overall"].finished >= 1


@QUICK
@example(NESTED)
@example({"m": [{"ip_addr": "127.0.0.1", "port": "²"}]})
@example({"m": [{"ip_addr": "127.0.0.1", "port": "1" * 5000}]})
@given(
    st.binary(max_size=40)
    | ANYTHING
    | CHANGES.map(lambda changes: changed({"m": [{"ip_addr": "127.0.0.1", "port": "1900"}]}, changes))
)
def test_model_config_files(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model_config_local.json")
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        for model in (None, "m"):
            with contextlib.suppress(UserError):
                servers = read_model_config(path, model)
                assert all(url.startswith("http://") for url in servers.urls)


def test_a_run_directory_in_which_everything_but_the_record_is_garbage_is_resumed(
    finished: Path, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    generator = random.Random(5)
    kept = ("simulations.jsonl", "config.yaml", "overrides.yaml", "hydra.yaml")
    before = (run_dir / "simulations.jsonl").read_bytes()
    for path in run_dir.rglob("*"):
        if path.is_file() and path.name not in kept:
            path.write_bytes(generator.randbytes(500))
    process = run(None, f"resume={run_dir}", "num_trials=2")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    assert (run_dir / "simulations.jsonl").read_bytes().startswith(before)
    assert len(json.loads((run_dir / "mock.json").read_text())["simulations"]) == 18
    json.loads((run_dir / "trace.json").read_text())
