"""A sweep over seeds tells the mean over them with intervals, in its table and summary, and one line for W&B."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_fleet.run.job_end import JobEnd
from tau2_fleet.run.seed_means import seed_means
from tests.compare.runs import drawn, write_run
from tests.run.runs import run


def test_jobs_that_differ_in_their_seed_alone_are_taken_together(tmp_path: Path):
    ends = []
    for number, (model, seed) in enumerate([("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 2), ("c", 1)]):
        run_dir = write_run(tmp_path / str(number), drawn(0.5, number, tasks=20, trials=1), seed=seed)
        ends.append(JobEnd(run_dir, [f"agent.model={model}", f"seed={seed}"], 0, results={}))
    ends.append(JobEnd(tmp_path / "lost", ["agent.model=c", "seed=2"], 1, "it did not start"))
    first, second = seed_means(ends)
    assert (first.overrides, first.jobs) == (("agent.model=a",), ("0", "1"))
    assert second.jobs == ("2", "3"), "a job that repeats a seed is no further seed"
    overall = first.metrics["overall"]
    assert (overall.simulations, overall.tasks) == (40, 20)
    assert overall.pass_hat[1].value == pytest.approx(sum(first.scores) / 2)
    assert overall.pass_hat[2].low is not None
    assert first.deviation == pytest.approx(abs(first.scores[0] - first.scores[1]) / 2**0.5)


def test_a_sweep_prints_and_keeps_the_means_and_one_line_for_the_upload(tmp_path: Path):
    done = run(
        None, "--multirun", "experiment=smoke", "seed=1,2", "num_tasks=2", "report=false", "log_level=ERROR",
        f"hydra.sweep.dir={tmp_path}", "wandb=offline",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean over seeds" in done.stdout
    means = json.loads((tmp_path / "summary.json").read_text())["means_over_seeds"]
    assert [mean["jobs"] for mean in means] == [["0_seed=1", "1_seed=2"]]
    assert means[0]["metrics"]["overall"]["pass_hat"]["2"]["low"] > 0
    assert (done.stdout + done.stderr).count("wandb sync") == 1
    assert "/*/wandb" in done.stderr
