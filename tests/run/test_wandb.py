"""What W&B holds of whole runs, read back with wandb's own reader and compared with their run directories."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.run.runs import records, run, summary
from tests.tracking import wandb_reader as reader

PRICE = "agent.price={input: 1.0, output: 2.0}"
COMPOSED = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")} | {".hydra/digests.json"}


@dataclass(frozen=True)
class Attempt:
    """One start of a run: what W&B was told, and the run directory as it was then."""

    told: list[dict[str, Any]]
    summary: dict[str, Any]
    records: list[dict[str, Any]]
    config: dict[str, Any]
    files: dict[str, bytes]
    events: Counter[str]
    output: str


def look(run_dir: Path, output: str) -> Attempt:
    files = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in run_dir.rglob("*")
        if path.is_file() and not path.is_relative_to(run_dir / "wandb")
    }
    config = yaml.safe_load(files[".hydra/config.yaml"])
    events = Counter(json.loads(line)["type"] for line in files["profile.jsonl"].splitlines())
    return Attempt(reader.read_back(run_dir)[-1], summary(run_dir), records(run_dir), config, files, events, output)


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> list[Attempt]:
    """A run that costs something, and its resume with more tasks and trials; nobody else may read their files."""
    run_dir = tmp_path_factory.mktemp("wandb") / "run"
    before = os.umask(0o077)
    try:
        first = run(run_dir, "experiment=smoke", "wandb=offline", "wandb.tags=[mine]", "num_tasks=3", PRICE)
        assert first.returncode == 0, first.stderr
        seen = look(run_dir, first.stderr)
        second = run(None, f"resume={run_dir}", "num_tasks=6", "num_trials=2")
    finally:
        os.umask(before)
    assert second.returncode == 0, second.stderr
    return [seen, look(run_dir, second.stderr)]


@pytest.fixture(params=[0, 1], ids=["first", "resumed"])
def attempt(request: pytest.FixtureRequest, attempts: list[Attempt]) -> Attempt:
    index: int = request.param
    return attempts[index]


def charted(attempt: Attempt) -> dict[str, Any]:
    """The last of the running numbers."""
    return [item for item in reader.history(attempt.told) if "cost_usd" in item][-1]


def test_cost_and_tokens_agree_in_the_chart_the_display_the_summary_and_the_record(attempt: Attempt) -> None:
    overall, last = attempt.summary["metrics"]["overall"], charted(attempt)
    usages = [usage for record in attempt.records for usage in record["usage_by_role"].values()]
    for kind in ("input", "output"):
        in_records = sum(usage[f"{kind}_tokens"] for usage in usages)
        assert last[f"tokens/{kind}"] == overall[f"{kind}_tokens"] == in_records > 0
    agents = [record["usage_by_role"]["agent"] for record in attempt.records]
    cost_usd = sum(usage["input_tokens"] * 1e-6 + usage["output_tokens"] * 2e-6 for usage in agents)
    assert last["cost_usd"] == pytest.approx(cost_usd)
    assert overall["cost_usd"] == pytest.approx(cost_usd)
    assert reader.summary(attempt.told)["metrics/overall/cost_usd"] == pytest.approx(cost_usd)
    shown = re.findall(r"^progress (\d+)/\d+ pass\^1 (\S+) .* cost \$(\S+) ", attempt.output, re.MULTILINE)[-1]
    assert shown == (str(len(attempt.records)), f"{last['pass_1/all']:.2f}", f"{cost_usd:.4f}")


def test_what_was_finished_and_passed_agrees_and_pass_hat_k_has_its_intervals(attempt: Attempt) -> None:
    told, last = reader.summary(attempt.told), charted(attempt)
    inventory = attempt.summary["inventory"]["overall"]
    assert last["finished"] == told["inventory/overall/finished"] == inventory["finished"] == len(attempt.records)
    assert last["errors"] == told["inventory/overall/infrastructure_errors"] == 0
    assert told["exit_status"] == attempt.summary["exit_status"] == 0
    for domain in ("mock", "overall"):
        hats = attempt.summary["metrics"][domain]["pass_hat"]
        assert sorted(hats) == [str(k + 1) for k in range(attempt.config["num_trials"])]
        for k, estimate in hats.items():
            for part in ("value", "low", "high"):
                assert told[f"metrics/{domain}/pass_hat/{k}/{part}"] == estimate[part] is not None
    assert last["pass_1/mock"] == last["pass_1/all"] == pytest.approx(told["metrics/overall/pass_hat/1/value"])


def test_the_configuration_is_the_one_that_was_composed(attempt: Attempt) -> None:
    (start,) = reader.of_type(attempt.told, "run")
    told = start["config"]["update"]
    assert told["num_tasks"] == attempt.config["num_tasks"]
    assert (told["agent.price.input"], told["agent.price.output"]) == (1, 2)
    assert sorted(start["tags"]) == ["mine", "mock", "simulated"]
    composed = leaves(attempt.config)
    assert {key: told.get(key, "absent") for key in composed} == composed


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The composed values by dotted key; a price that was not set is none as a whole, a part with a target is one."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if not isinstance(value, dict) or not value or "_target_" in value:
            found[f"{prefix}{name}"] = value
        elif "???" in value.values():
            found[f"{prefix}{name}"] = None
        else:
            found |= leaves(value, f"{prefix}{name}.")
    return found


def test_the_table_has_a_row_for_every_record(attempt: Attempt) -> None:
    rows = {(row["domain"], row["task_id"], row["trial"]): row for row in reader.table(attempt.told)}
    assert len(rows) == len(attempt.records)
    for record in attempt.records:
        row = rows[record["domain"], record["task_id"], record["trial"]]
        for name in ("seed", "reward", "termination_reason", "duration_s", "error"):
            assert row[name] == record[name], name
        assert row["messages"] == len(record["messages"])
        assert row["tool_calls"] == sum(len(message.get("tool_calls") or []) for message in record["messages"])
        assert row["cost_usd"] == pytest.approx(sum(record["cost_by_role"].values()))
        for kind in ("input_tokens", "output_tokens"):
            assert row[kind] == sum(usage[kind] for usage in record["usage_by_role"].values())
        assert "transcript" not in row


def test_the_artifact_has_the_runs_files_as_they_are_without_conversations(attempt: Attempt) -> None:
    earlier = {name for name in attempt.files if name.startswith(".hydra/attempt-")}
    kept = reader.artifacts(attempt.told)["run"]
    assert set(kept) == {*COMPOSED, *earlier, "profile.jsonl", "summary.json", "trace.json"}
    for name, path in kept.items():
        assert path.read_bytes() == attempt.files[name], name


def test_live_latencies_and_histograms_cover_every_type_of_event(attempt: Attempt) -> None:
    types = {"llm_call", "user_sim", "tool_call", "step_complete"}
    named = {name for item in reader.history(attempt.told) for name in item if name.startswith("latency_ms/")}
    assert types <= {name.split("/")[1] for name in named}
    bins = {
        name: sum(values)
        for item in reader.history(attempt.told)
        for name, values in item.items()
        if re.fullmatch(r"profile/\w+_ms\.values", name)
    }
    assert {kind: bins[f"profile/{kind}_ms.values"] for kind in types} == {kind: attempt.events[kind] for kind in types}


def test_a_resumed_run_goes_on_in_the_same_wandb_run(attempts: list[Attempt]) -> None:
    (first,), (second,) = (reader.of_type(attempt.told, "run") for attempt in attempts)
    assert first["run_id"] == second["run_id"]
    steps = [item["_step"] for attempt in attempts for item in reader.history(attempt.told)]
    assert steps == list(range(len(steps)))
    assert charted(attempts[0])["cost_usd"] < charted(attempts[1])["cost_usd"]
    assert len(attempts[1].records) == 12


def test_an_infrastructure_error_counts_until_its_repetition_is_stored(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    hanging = ("server.simulated.faults.rate=1", "server.simulated.faults.kinds=[hang]", "limits.call_timeout_s=0.3")
    first = run(run_dir, "experiment=smoke", "wandb=offline", "num_tasks=2", "server.preflight=false", *hanging)
    assert first.returncode == 3, first.stderr
    # What the first repetition leaves does not pay for the second: the other error stands.
    limits = ("limits.call_timeout_s=600", "limits.max_cost_usd=0.0024", "max_concurrency=1")
    second = run(None, f"resume={run_dir}", "server.simulated.faults.rate=0", "resume_force=true", PRICE, *limits)
    assert second.returncode == 3, second.stderr
    last, told = charted(look(run_dir, second.stderr)), summary(run_dir)
    assert last["errors"] == told["inventory"]["overall"]["infrastructure_errors"] == 1
    assert last["finished"] == told["inventory"]["overall"]["finished"] == 1
    assert last["pass_1/all"] == told["metrics"]["overall"]["pass_hat"]["1"]["value"] == 0.5
    assert last["cost_usd"] == pytest.approx(told["metrics"]["overall"]["cost_usd"])
    assert "progress 1/2 pass^1 0.50 in flight 0 errors 1 " in second.stderr


def test_runs_of_a_sweep_are_one_group_told_apart_by_their_names_and_hold_transcripts_when_wanted(
    tmp_path: Path,
) -> None:
    sweep = tmp_path / "sweep"
    process = run(
        None,
        *("--multirun", "experiment=smoke", "task_ids=[create_task_1]", "seed=1,2"),
        *("wandb=offline", "wandb.transcripts=true", f"hydra.sweep.dir={sweep}"),
    )
    assert process.returncode == 0, process.stderr
    names = []
    for job in sorted(sweep.glob("[0-9]*")):
        (told,) = reader.read_back(job)
        (start,) = reader.of_type(told, "run")
        assert start["run_group"] == "sweep"
        names.append(start["display_name"])
        (row,), (record,) = reader.table(told), records(job)
        assert all((message["content"] or "") in row["transcript"] for message in record["messages"])
        assert {"simulations.jsonl", "prompts.jsonl", "run.log", "mock.json"} <= set(reader.artifacts(told)["run"])
    assert names == ["simulated mock seed=1", "simulated mock seed=2"]
