from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.record.atomic import write_json, write_text
from tau2_fleet.run.plan import write_played_tasks

WRITERS: dict[str, Callable[[Path], object]] = {
    "results and summaries": lambda folder: write_json(folder / "summary.json", {}),
    "the composition": lambda folder: write_text(folder / "config.yaml", "seed: 1"),
    "tasks of simulated servers": lambda folder: write_played_tasks(
        folder, [PoolSpec("agent", Simulated(), model="m")], {}
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, what: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"^cannot write {tmp_path / 'file' / 'below'}\S*: Not a directory$"):
        WRITERS[what](tmp_path / "file" / "below")


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path):
    path = tmp_path / "summary.json"
    write_json(path, {"kept": True})
    before = path.read_bytes()
    (tmp_path / ".summary.json.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"^cannot write .*summary.json: No space left on device$"):
        write_json(path, {"kept": False})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
