"""τ²-bench 1.0.1: the installed package's code with what was added to it since, on that version's task files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark.version import GUIDELINE_FILES, BenchmarkVersion, offered_user_tools

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task
    from tau2.environment.environment import Environment as PackageEnvironment

_GOAL = "Remember: The goal is"
"""How the guidelines' last paragraph begins."""


class Version(BenchmarkVersion):
    """Telecom and the databases are as in the installed package; tasks of the others come from a checkout."""

    name = "tau2-1.0.1"
    scoring = "tau2-1.0.1"
    judge_model = "gpt-4.1-2025-04-14"
    needs_data = frozenset({"retail", "airline", "mock"})
    needs_files = frozenset({"mock"})
    falls_back = True
    shares_database = True
    own_code = ("additions_1_0_1.py", "versions/tau2_1_0_1.py")

    def adapt(self, base: str, environment: PackageEnvironment, files: Mapping[str, Path]) -> None:
        if base == "retail":
            from tau2_fleet.benchmark.additions_1_0_1 import RetailToolsWithItems

            environment.tools = RetailToolsWithItems(environment.tools.db)
        elif base == "mock":
            from tau2_fleet.benchmark.additions_1_0_1 import MockUserDB, MockUserTools

            if "user_db.json" not in files:
                raise OSError("user_db.json is missing")
            environment.user_tools = MockUserTools(MockUserDB.load(str(files["user_db.json"])))

    def has_user_tools(self, base: str) -> bool | None:
        return True if base == "mock" else None

    def user_guidelines(self, with_tools: bool) -> str:
        """Those of a checkout as they are; the package's with the lines broken as 1.0.1 breaks them."""
        text = super().user_guidelines(with_tools)
        if self._guideline_files[GUIDELINE_FILES[with_tools]].is_relative_to(self.data_dir or "/nowhere"):
            return text
        return text.replace(f"\n\n{_GOAL}", f"\n{_GOAL}") + "\n"

    def user_tools_of(self, task: Task, raw: Mapping[str, Any], schemas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return offered_user_tools(raw, schemas)
