"""What is exported of a run in which simulations end in many ways, to the last letter."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compare.runs import call
from tests.golden import assert_agrees, eventful_run, in_utc

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    """Logs of Inspect have times with their zone."""
    with in_utc():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eventful_run(tmp_path_factory.mktemp("golden") / "run")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("csv", "--format csv"), ("sft", "--format sft --all --domain airline"),
        ("dpo", "--format dpo --all --max-reward 1"), ("inspect", "--format inspect --task retail/2 --task retail/3"),
    ],
)  # fmt: skip
def test_what_is_exported(run: Path, tmp_path: Path, name: str, options: str) -> None:
    status, out, err = call("export", run, *options.split(), "-o", tmp_path / name)
    assert_agrees(GOLDEN / f"{name}.txt", f"{status}\n{out}\n{err}", run=run, output=tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        if not zipfile.is_zipfile(path):
            assert_agrees(GOLDEN / f"{name}-{path.name.removeprefix('.')}", path.read_text(), run=run, output=tmp_path)
            continue
        with zipfile.ZipFile(path) as log:
            for member in sorted(log.namelist()):
                text = json.dumps(json.loads(log.read(member)), indent=1, ensure_ascii=False)
                assert_agrees(GOLDEN / f"{name}-{member.replace('/', '-')}", text, run=run, output=tmp_path)


def test_a_domain_has_as_many_epochs_as_trials_of_its_own(run: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in (run / "simulations.jsonl").open()]
    fewer = tmp_path / "run"
    fewer.mkdir()
    kept = [record for record in records if record["domain"] == "retail" or record["trial"] == 0]
    (fewer / "simulations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    status, _, err = call("export", fewer, "--format", "inspect", "-o", tmp_path / "logs")
    assert (status, err) == (0, "")
    epochs = {}
    for path in (tmp_path / "logs").glob("*.eval"):
        with zipfile.ZipFile(path) as log:
            header = json.loads(log.read("header.json"))["eval"]
        epochs[header["metadata"]["domain"]] = (header["config"]["epochs"], header["dataset"]["samples"])
    assert epochs == {"retail": (2, 9), "airline": (1, 3)}
