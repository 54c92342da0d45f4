"""What the versions of the benchmark score differently, as small named parts; `find_rules` gives them by name.

Plain values, so that they can also be told to another process. The replay (`benchmark.environment`), the reward
(`evaluation.reward`) and the statistics (`evaluation.metrics`) read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from tau2_fleet.benchmark.named import named_part

FOLDER = "tau2_fleet.benchmark.scoring"


class Replay(StrEnum):
    """Which recorded calls are run again, and their outputs compared."""

    all_calls = "all_calls"
    writes = "writes"
    """Those of tools that change state; reads and the like are passed over, whatever was recorded."""


class UnknownTool(StrEnum):
    """What a replay makes of a call whose tool neither side has."""

    run = "run"
    """It is answered with the error text, which is compared like any other."""
    skip = "skip"


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """How one version of the benchmark scores."""

    name: str
    replay: Replay
    unknown_tool: UnknownTool
    default_basis: tuple[str, ...]
    """The reward basis of a task that names none."""
    criteria: frozenset[str]
    """What can stand in a reward basis."""
    scored_endings: frozenset[str]
    """After any other the reward is 0, and nothing is looked at."""
    endings: frozenset[str]
    """Those that its results files can hold; a file with another one cannot be read by it."""
    outside_metrics: frozenset[str] = frozenset()
    """Endings that its own average reward and pass^k leave out; here they count as failures in the headline."""
    tool_types: bool = False
    """Whether its checks of actions say of what type the tool is."""
    defects: tuple[str, ...] = ()
    """Rules of it that are followed although they are wrong, in words for people."""

    def basis(self, criteria: object) -> tuple[str, ...]:
        """The reward basis of a task's criteria (the package's `EvaluationCriteria`), in the task's order."""
        if "reward_basis" not in getattr(criteria, "model_fields_set", ("reward_basis",)):
            return self.default_basis
        return tuple(str(getattr(kind, "value", kind)) for kind in criteria.reward_basis)  # type: ignore[attr-defined]

    def replays(self, name: str, tool_types: Mapping[str, str]) -> bool:
        """Whether a replay runs the calls of a tool.

        Args:
            tool_types: `read`, `write`, `generic`, ... by the name of every tool, agent's and user's.
        """
        if name not in tool_types:
            return self.unknown_tool is UnknownTool.run
        return self.replay is Replay.all_calls or tool_types[name] == "write"


@cache
def find_rules(name: str) -> ScoringRules:
    """The rules of this name: of a module in this folder, or `RULES` or another name of any module by its path.

    Raises:
        UserError: there are none.
    """
    return named_part(name, "benchmark.scoring", FOLDER, "RULES", ScoringRules)
