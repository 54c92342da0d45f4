"""A file of somebody's own folder of configuration is loaded, or refused in a line, in bounded time and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_fleet.config.compose import compose
from tau2_fleet.errors import UserError

_GLOBAL = b"# @package _global_\n"
_BOMB = b'a: &a ["lol", "lol"]\n' + b"".join(
    b"%c: &%c [%b]\n" % (name, name, b", ".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghijk"
)
TEXTS = {
    "bomb": (_GLOBAL + _BOMB, "more than 20,000 values"),
    "within itself": (_GLOBAL + b"a: &a [*a]\n", "*a stands within"),
    "deep": (_GLOBAL + b"a: " + b"[" * 5000 + b"]" * 5000, "nested more than 100 deep"),
    "large": (_GLOBAL + b"num_tasks: 1\n" + b"#" * 2**21, "larger than 1 MB"),
    "UTF-16": ((_GLOBAL + b"num_tasks: 1\n").decode().encode("utf-16"), "no UTF-8 text"),
    "Latin 1": (_GLOBAL + b"num_tasks: 1 # \xe4\n", "no UTF-8 text"),
    "byte order mark": (b"\xef\xbb\xbf" + _GLOBAL + b"num_tasks: 1\n", "a byte order mark"),
    "code": (_GLOBAL + b"num_tasks: !!python/object/apply:os.mkdir [pwned]\n", "could not determine a constructor"),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    return folder / "odd.yaml"


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as told:
        compose(["--config-dir", "own", *overrides])
    return str(told.value)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_file_that_no_configuration_can_be_is_refused_by_its_name(path: Path, kind: str) -> None:
    content, reason = TEXTS[kind]
    path.write_bytes(content)
    told = refused("experiment=odd")
    assert reason in told
    assert str(path) in told
    assert "\n" not in told
    assert not Path("pwned").exists()


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_not_waited_for(path: Path, kind: str) -> None:
    PLACES[kind](path)
    told = refused("experiment=odd")
    assert told.startswith("own/experiment/odd.yaml: a file of a configuration is meant")
    assert "quick, simulated" in refused("experiment=odds")
    assert "odd," not in refused("experiment=odds")


def test_aliases_that_stand_for_little_are_taken(path: Path) -> None:
    path.write_bytes(_GLOBAL + b"num_trials: &few 2\nnum_tasks: *few\n")
    tree = compose(["--config-dir", "own", "experiment=odd"])
    assert (tree.num_trials, tree.num_tasks) == (2, 2)
