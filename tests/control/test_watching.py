"""`ctl tail`: the last lines of a log and those that come, also when it is moved aside, until its run has ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tau2_fleet.control import watching
from tau2_fleet.errors import UserError


def goes_on(monkeypatch: pytest.MonkeyPatch, *looks: bool) -> None:
    """Whether the run goes on, look by look; from the last on as at the last."""
    left = list(looks)

    def status(run_dir: Path) -> SimpleNamespace:
        return SimpleNamespace(state=SimpleNamespace(live=left.pop(0) if len(left) > 1 else left[0]))

    monkeypatch.setattr("tau2_fleet.control.client.status", status)


@pytest.mark.parametrize("block", [3, 2**16])
@pytest.mark.parametrize(
    ("lines", "shown"), [(0, []), (1, ["three"]), (2, ["two", "three"]), (9, ["one", "two", "three"])]
)
def test_of_a_run_that_has_ended_the_last_lines_are_told(
    block: int, lines: int, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_BLOCK", block)
    goes_on(monkeypatch, False)
    (tmp_path / "run.log").write_text("one\ntwo\nthree\n")
    assert list(watching.tail(tmp_path, lines)) == shown


def test_what_comes_is_told_once_and_a_log_that_was_moved_aside_is_followed_by_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "run.log"
    log.write_text("before\n")

    def more(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    def moved() -> None:
        log.rename(tmp_path / "run.log.1")
        log.write_text("new file\n")

    news = iter([lambda: more("half a "), lambda: more("line\nnext\n"), moved, log.unlink])
    goes_on(monkeypatch, *[True] * 5, False)
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=lambda _: next(news)()))  # nobody else's
    assert list(watching.tail(tmp_path, 5)) == ["before", "half a line", "next", "new file"]


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(watching.tail(tmp_path, 5))
