"""The house keeps its order: every room has its tests, and no modules import each other in a circle."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]


def test_every_room_has_its_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "tau2_fleet").glob("*/__init__.py")}
    assert len(rooms) > 15
    for room in rooms:
        assert list((ROOT / "tests" / room).glob("**/test_*.py")), room


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Neither when it is loaded, nor in a function, nor for its annotations."""
    graph = grimp.build_graph("tau2_fleet", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 300
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
