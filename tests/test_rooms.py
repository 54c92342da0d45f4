"""The house keeps its order: every room has its tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_room_has_its_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "tau2_fleet").glob("*/__init__.py")}
    assert len(rooms) > 15
    for room in rooms:
        assert list((ROOT / "tests" / room).glob("**/test_*.py")), room
