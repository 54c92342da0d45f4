"""A comparison on W&B: its figures stand in the candidate's group, and a baseline may be pinned there."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compare.runs import call, drawn, write_run
from tests.tracking.wandb_reader import of_type, read_back, summary


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)


def test_the_figures_are_the_summary_of_a_run_in_the_candidates_group(tmp_path: Path):
    first = write_run(tmp_path / "a", drawn(0.3, 1, 40))
    second = write_run(tmp_path / "b", drawn(0.8, 2, 40), "wandb.group=nightly", "wandb.project=mine", seed=2)
    status, out, err = call("compare", "--baseline", first, "--candidate", second, "--wandb", "--fail-below=-3pp")
    assert status == 0, err
    assert "W&B: wandb sync wandb/offline-run-" in out.replace("\n", "")
    (records,) = read_back(tmp_path)
    (run,) = of_type(records, "run")
    assert (run["project"], run["run_group"], run["job_type"]) == ("mine", "nightly", "compare")
    figures = summary(records)
    assert any(name.endswith("difference_pp") for name in figures), figures
    assert "retail/0" not in str(figures), "tasks stay here"


class Artifact:
    """What `wandb.Api().artifact` gives, of a folder."""

    digest = "d1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def download(self, root: str) -> str:
        shutil.copytree(self._folder, root, dirs_exist_ok=True)
        return root


def test_a_pinned_baseline_is_fetched_once_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Our part alone: wandb's own download is not tried here."""
    import wandb

    kept = tmp_path / "kept"
    write_run(kept / "run", drawn(0.3, 1, 40))
    asked: list[str] = []

    def artifact(name: str) -> Any:
        asked.append(name)
        return Artifact(kept)

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(artifact=artifact))
    second = write_run(tmp_path / "b", drawn(0.8, 2, 40), seed=2)
    policy = tmp_path / "gate.yaml"
    policy.write_text("baseline: wandb:team/mine/released:v3\noverall: -3pp\n")
    status, out, err = call("compare", "--candidate", second, "--policy", policy)
    assert status == 0, err
    assert asked == ["team/mine/released:v3"]
    assert "gate passed" in out
    shutil.rmtree(tmp_path / "cache")
    record = kept / "run" / "simulations.jsonl"
    record.with_name("simulations.jsonl.gz").write_bytes(gzip.compress(record.read_bytes()))
    record.unlink()
    assert call("compare", "--candidate", second, "--policy", policy)[0] == 0, "a large record is there compressed"
    shutil.rmtree(tmp_path / "cache")
    for file in (kept / "run").glob("*"):
        if file.is_file():
            shutil.move(file, kept)
    (kept / "simulations.jsonl.gz").unlink()
    status, _, err = call("compare", "--candidate", second, "--policy", policy)
    assert (status, "logged with wandb.transcripts=false" in err) == (1, True)
    shutil.rmtree(kept)
    write_run(kept / "run", drawn(0.3, 1, 40))
    shutil.rmtree(tmp_path / "cache")
    write_run(kept / "other", drawn(0.3, 3, 40), seed=3)
    status, _, err = call("compare", "--candidate", second, "--policy", policy)
    assert status == 1
    assert "expected one run directory or one results file in it, found 2" in err
