"""Open files: as many as a run needs, and words about them only where somebody asked for more than there are."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.limits import files_needed, most_for_files, refuse_too_few_files

HARD = 2000


def lowered() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, HARD))


def test_as_many_simulations_are_held_as_the_hard_limit_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, HARD))
    assert most_for_files(10) == 10
    most = most_for_files(4096)
    assert files_needed(most) <= HARD < files_needed(most + 1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert most_for_files(4096) == 4096


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((), False),  # the program finds out how many
        (("max_concurrency=4000",), False),  # there are only nine
        (("max_concurrency=200", "num_trials=20"), True),
    ],
)
def test_a_low_limit_is_told_only_where_so_many_simulations_were_asked_for(
    settings: tuple[str, ...], told: bool, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tau2_fleet", "run", "experiment=smoke", f"hydra.run.dir={tmp_path}", *settings],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        preexec_fn=lowered,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("open files" in done.stdout + done.stderr) is told


def test_a_limit_below_what_the_asked_number_needs_is_refused_with_the_number_that_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    refuse_too_few_files(24)
    with pytest.raises(UserError, match=r"have 64: raise its hard limit \(ulimit -Hn\), or set max_concurrency to 24"):
        refuse_too_few_files(25)
    assert 1 <= most_for_files(4096) <= 24
