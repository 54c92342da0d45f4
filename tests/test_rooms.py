"""The house keeps its order: every room has its tests, no modules import each other in a circle, and no
class name has two meanings."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
FOUND_BY_NAME = {"Version"}
"""What each module of a folder has, to be found in it by this name: one meaning."""


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


def test_no_class_is_named_like_a_public_one_of_another_module() -> None:
    homes = defaultdict[str, list[str]](list)
    for path in (ROOT / "src" / "tau2_fleet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    public = {name for name in homes if not name.startswith("_")} - FOUND_BY_NAME
    assert len(public) > 400
    assert {name: found for name in public if len(found := homes[name] + homes.get(f"_{name}", [])) > 1} == {}
