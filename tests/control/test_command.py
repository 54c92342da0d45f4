"""What the words of `ctl` ask of which runs, and how the answers are told; no run is needed for that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.control.command import main
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, Verb

Asked = list[tuple[str, ControlRequest]]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for number in ("0", "1", "2"):
        (tmp_path / "sweep" / number / ".hydra").mkdir(parents=True)
        (tmp_path / "sweep" / number / ".hydra" / "overrides.yaml").touch()
    return tmp_path / "sweep"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Have runs of these names go on, and answer so."""

    def answering(answer: ControlAnswer, *going_on: str) -> Asked:
        heard: Asked = []

        def ask(run_dir: Path, request: ControlRequest) -> ControlAnswer:
            heard.append((run_dir.name, request))
            return answer

        def status(run_dir: Path) -> Any:
            return SimpleNamespace(state=SimpleNamespace(live=run_dir.name in going_on))

        monkeypatch.setattr("tau2_fleet.control.client.ask", ask)
        monkeypatch.setattr("tau2_fleet.control.client.status", status)
        return heard

    return answering


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["pause", "DIR"], ControlRequest(Verb.pause)),
        (["DIR", "resume"], ControlRequest(Verb.resume)),
        (["cancel", "mock/1", "DIR"], ControlRequest(Verb.cancel, "mock/1")),
        (["cancel", "DIR", "mock/1", "--trial", "2"], ControlRequest(Verb.cancel, "mock/1", 2)),
        (["rerun", "--all", "DIR"], ControlRequest(Verb.rerun, every=True)),
        (["rerun", "5", "--trial", "0", "DIR"], ControlRequest(Verb.rerun, "5", 0)),
        (["set", "max_concurrency=64", "DIR"], ControlRequest(Verb.set, key="max_concurrency", value="64")),
        (["set", "a=b=c", "DIR"], ControlRequest(Verb.set, key="a", value="b=c")),
    ],
)
def test_words_mean_the_same_in_any_order(
    words: list[str], request_: ControlRequest, sweep: Path, asked: Callable[..., Asked]
) -> None:
    heard = asked(ControlAnswer(True))
    assert main([str(sweep / "1") if word == "DIR" else word for word in words]) == 0
    assert heard == [("1", request_)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rerun", "DIR"], "rerun: name a task, or say --all"),
        (["rerun", "5", "--all", "DIR"], "rerun: name a task, or say --all"),
        (["set", "max_concurrency", "DIR"], "wanted KEY=VALUE"),
        (["pause", "DIR/none"], "is not there"),
        (["pause", "DIR/.hydra"], "is neither a run's directory nor a sweep's"),
        (["pause", "DIR/.hydra/overrides.yaml"], "is a file, not a directory"),
    ],
)
def test_words_that_make_no_sense_are_refused_with_what_is_wanted(
    words: list[str], told: str, sweep: Path, asked: Callable[..., Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    heard = asked(ControlAnswer(True))
    assert main([word.replace("DIR", str(sweep / "1")) for word in words]) == 1
    assert told in " ".join(capsys.readouterr().err.split())
    assert heard == []


def test_of_a_sweep_the_jobs_that_go_on_are_asked(
    sweep: Path, asked: Callable[..., Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    heard = asked(ControlAnswer(True, ("done",)), "0", "2")
    assert main(["drain", str(sweep)]) == 0
    assert [name for name, _ in heard] == ["0", "2"]
    assert capsys.readouterr().out.count("done") == 2
    assert main(["tail", str(sweep)]) == 1
    assert "has 2 jobs that go on; choose one" in " ".join(capsys.readouterr().err.split())
    asked(ControlAnswer(True))
    assert main(["pause", str(sweep)]) == 1
    assert "none of the 3 jobs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "status"),
    [(ControlAnswer(True), 0), (ControlAnswer(False), 1), (ControlAnswer(False, (), refused=True), 2)],
)
def test_an_answer_is_told_and_is_the_exit_status(
    answer: ControlAnswer, status: int, sweep: Path, asked: Callable[..., Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    said = tuple(f"line {number}" for number in range(12))
    asked(ControlAnswer(answer.done, said, refused=answer.refused))
    assert main(["pause", str(sweep / "1")]) == status
    out, err = capsys.readouterr()
    told, other = (out, err) if answer.done else (err, out)
    assert (told.count("line "), "and 2 more; --json lists all" in told, other) == (10, True, "")
    assert main(["pause", "--json", str(sweep / "1")]) == status
    found = json.loads(capsys.readouterr().out)
    assert (found["directory"], found["done"], len(found["said"])) == (str(sweep / "1"), answer.done, 12)
