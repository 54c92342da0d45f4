"""Parts of one's own: what is found, and what is said of one that cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import make, names

FOLDER = "shelf"


class Named(Protocol):
    """What the parts of this test are to have."""

    size: int

    def speak(self) -> str: ...


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of parts, and a module of somebody else's."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_base.py").write_text("")
    (folder / "very_small.py").write_text(
        "class VerySmall:\n    def __init__(self, size=1): self.size = size\n    def speak(self): return 'here'\n"
    )
    (tmp_path / "elsewhere.py").write_text(
        "from shelf.very_small import VerySmall as Other\ndef broken(): raise ValueError('no\\nluck')\n"
        "def other_thing(): return 3\nnumber = 7\n"
    )
    (tmp_path / "quits.py").write_text("raise SystemExit")
    (tmp_path / "unripe.py").write_text("raise RuntimeError('not yet')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("elsewhere", "quits", "unripe", FOLDER, f"{FOLDER}.very_small"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)


@pytest.mark.parametrize(
    ("choice", "size"),
    [
        ("very_small", 1),
        ("elsewhere.Other", 1),
        ({"_target_": "very_small", "size": 3}, 3),
        ({"_target_": "elsewhere.Other", "size": 4}, 4),
    ],
)
def test_a_part_is_found_by_the_name_of_its_file_or_by_its_import_path(choice: Any, size: int) -> None:
    part = make(choice, "some.key", FOLDER, Named)
    assert (part.size, part.speak()) == (size, "here")
    assert names(FOLDER) == ["very_small"]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("very_smal", r"some\.key=very_smal: there is none of this name, only very_small; one of your own"),
        ({"size": 3}, r"some\.key=null: there is none of this name"),
        ("nowhere.Part", r"some\.key: nowhere\.Part cannot be had: ModuleNotFoundError: No module named 'nowhere'"),
        ("elsewhere.Part", r"some\.key: elsewhere\.Part cannot be had: AttributeError: .*'Part'"),
        ("unripe.Part", r"some\.key: unripe\.Part cannot be had: RuntimeError: not yet"),
        ("quits.Part", r"some\.key: quits\.Part cannot be had: SystemExit: $"),
        ("sys.exit", r"some\.key: sys\.exit failed while it was made: SystemExit"),
        ("elsewhere.broken", r"some\.key: elsewhere\.broken failed while it was made: ValueError: no luck$"),
        (
            {"_target_": "very_small", "sise": 3},
            r"very_small failed while it was made: TypeError: .*'sise'; did you mean size\?$",
        ),
        ("elsewhere.number", r"elsewhere\.number is a int, not a class or function to call"),
        ("elsewhere.other_thing", r"elsewhere\.other_thing made a int, which has no size, speak: no Named"),
    ],
)
def test_a_part_that_cannot_be_had_is_named_in_one_line(choice: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make(choice, "some.key", FOLDER, Named)
    assert "\n" not in str(caught.value)
