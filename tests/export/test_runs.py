"""What is read of a run beside its records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError
from tau2_fleet.export.runs import Run


def configured(tmp_path: Path, config: Any) -> Run:
    folder = tmp_path / ".hydra"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Run(tmp_path, "run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Other data: airline alone, with one task to train on."""
    folder = tmp_path / "data" / "tau2" / "domains" / "airline"
    shutil.copytree(load_domain("airline").folder, folder)
    (folder / "split_tasks.json").write_text(json.dumps({"base": ["7", "8"], "train": ["7"]}))
    return tmp_path / "data"


def test_tasks_to_train_on_are_those_of_the_data_that_the_run_had(tmp_path: Path, data: Path) -> None:
    package = {domain: frozenset(load_domain(domain).split("train") or ()) for domain in ("airline", "retail")}
    of_benchmark = configured(tmp_path, {"benchmark": {"data_dir": str(data)}})
    assert of_benchmark.train_tasks("airline") == {"7"}
    with pytest.raises(UserError, match=r"retail: no data in .*; --all takes every task"):
        of_benchmark.train_tasks("retail")
    of_domain = configured(tmp_path, {"domain": {"airline": {"data_dir": str(data)}}})
    assert of_domain.train_tasks("airline") == {"7"}
    assert of_domain.train_tasks("retail") == package["retail"]
    for odd in ({}, {"benchmark": None}, {"benchmark": {"data_dir": None}}, "x", None):
        assert configured(tmp_path, odd).train_tasks("airline") == package["airline"]
    assert configured(tmp_path, {}).train_tasks("mock") == set()


def test_data_that_are_gone_are_told_with_the_way_out(tmp_path: Path) -> None:
    run = configured(tmp_path, {"benchmark": {"data_dir": str(tmp_path / "gone")}})
    with pytest.raises(UserError, match=r"data_dir=.*gone: there is no such directory; --all takes every task"):
        run.train_tasks("airline")
