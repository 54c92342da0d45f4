from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_fleet.errors import CannotWrite, UserError
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.record import atomic
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


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/dev/stdout", "/dev/stdin"])
def test_a_device_is_never_replaced(path: str) -> None:
    """Asked of the check alone: were it gone, a test of the whole would take the device from this machine."""
    with pytest.raises(OSError, match="no file but a device"):
        atomic._refuse_special(Path(path))


def test_a_pipe_or_a_socket_stays_where_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for path in list(tmp_path.iterdir()):
        for writes in (atomic.replaced, atomic.folder_replaced):
            with pytest.raises(CannotWrite, match="no file but a pipe or a socket"), writes(path):
                raise AssertionError("nothing is to be written")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert stat.S_ISSOCK((tmp_path / "socket").lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_files_and_folders_in_the_place_of_a_device_are_one_clear_error(tmp_path: Path) -> None:
    device = tmp_path / "device"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    for writes in (atomic.replaced, atomic.folder_replaced):
        with pytest.raises(CannotWrite, match="no file but a device"), writes(device):
            raise AssertionError("nothing is to be written")
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert [*tmp_path.iterdir()] == [device]


def test_a_link_to_a_device_in_a_run_is_replaced_and_the_device_stays(tmp_path: Path) -> None:
    link = tmp_path / "summary.json"
    link.symlink_to("/dev/null")
    write_json(link, {})
    assert link.is_file()
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "pages"
    for name in (".pages.tmp", ".pages.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").touch()
    with atomic.folder_replaced(place) as folder:
        (folder / "first").touch()
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["first"]
    with pytest.raises(CannotWrite), atomic.folder_replaced(place) as folder:
        (folder / "half" / "way").touch()
    assert [path.name for path in place.iterdir()] == ["first"]
    with atomic.folder_replaced(place) as folder:
        (folder / "second").touch()
    assert [path.name for path in place.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_a_folder_that_cannot_take_its_place_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    place = tmp_path / "pages"
    place.mkdir()
    (place / "kept").touch()
    with pytest.raises(CannotWrite, match="No such file"), atomic.folder_replaced(place) as folder:
        folder.rmdir()
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_texts_get_the_folder_they_are_to_stand_in_and_values_are_readable(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "é")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "é".encode()
    write_json(tmp_path / "v.json", {"é": Path("x"), "s": "\ud800"})
    assert (tmp_path / "v.json").read_text() == '{\n  "é": "x",\n  "s": "?"\n}\n'
