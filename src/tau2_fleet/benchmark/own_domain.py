"""Domains of one's own, each a folder: `policy.md`, `db.json` or `db.toml`, `tasks.json` and `tools.py`.

`tools.py` has one class of the package's `ToolKitBase`, which says the class of its database: `db: MyDB`. What may be
there as well: `policy_solo.md`, `split_tasks.json`, and for customers with tools `user_tools.py` with `user_db.json`
or `user_db.toml`, where a subclass of the package's `Environment` can tell how the two sides are synced.
`load_domain` makes an `OwnDomain` where `domain.NAME.path` is given.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from tau2_fleet.benchmark.data import DomainFiles
from tau2_fleet.benchmark.environment_template import EnvironmentTemplate
from tau2_fleet.benchmark.local_domain import Contents, LocalDomain
from tau2_fleet.benchmark.version_traits import VersionTraits
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2.environment.environment import Environment as PackageEnvironment
    from tau2.environment.toolkit import ToolKitBase

_PARTS = (("policy.md",), ("tools.py",), ("tasks.json",), ("db.json", "db.toml"))
"""What a folder must hold: one file of each."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TAKEN = frozenset({"overall", "prompts", "summary", "trace", "control", "model_config_local"})
"""Names that files of a run or parts of its summary have."""


class OwnDomain(LocalDomain):
    """A domain that is a folder of somebody's; its code runs in this process."""

    def __init__(self, name: str, folder: Path) -> None:
        """
        Raises:
            UserError: the name cannot be, or a part of the folder is missing.
        """
        files = DomainFiles((folder,), kinds=(".json", ".toml", ".md", ".py"))
        super().__init__(name, files, VersionTraits(), source=folder)
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UserError(f"domain {name}: choose a name of letters, digits, _ and - that no file of a run has")
        if not folder.is_dir():
            raise UserError(f"domain.{name}.path={folder}: there is no such directory")
        missing = [" or ".join(part) for part in _PARTS if not any((folder / file).is_file() for file in part)]
        if missing:
            raise UserError(f"domain.{name}.path={folder}: {', '.join(missing)} missing")

    @property
    def has_user_tools(self) -> bool:
        """Known without running the folder's code."""
        return (self.folder / "user_tools.py").is_file()

    def _read(self) -> Contents:
        template = self._environment()
        user_tools = template.get_user_tools() if template.user_tools is not None else []
        try:
            agent_schemas = [tool.openai_schema for tool in template.get_tools()]
            user_schemas = [tool.openai_schema for tool in user_tools]
        except (Exception, SystemExit) as error:
            raise self._wrong("tools.py", error) from error
        solo = self.folder / "policy_solo.md"
        return Contents(
            policy=self._text("policy.md"),
            solo_policy=self._text("policy_solo.md") if solo.is_file() else None,
            agent_tools=agent_schemas,
            user_tools=user_schemas,
            template=EnvironmentTemplate(template, foreign=True),
        )

    def _environment(self) -> PackageEnvironment:
        from tau2.environment.environment import Environment

        tools, kind = self._toolkit("tools", "db"), Environment
        user_tools = None
        if (self.folder / "user_tools.py").is_file():
            user_tools = self._toolkit("user_tools", "user_db")
            own = _classes(self._module("user_tools"), Environment)
            kind = own[0] if own else Environment
        try:
            environment: PackageEnvironment = kind(self.name, self._text("policy.md"), tools, user_tools)
        except (Exception, SystemExit) as error:
            raise self._wrong("user_tools.py", error) from error
        return environment

    def _toolkit(self, module_name: str, database: str) -> ToolKitBase:
        """The toolkit of a module, made of its database.

        Raises:
            UserError: the module fails, has no toolkit or several, or the database is not of the form that it wants.
        """
        from tau2.environment.db import DB
        from tau2.environment.toolkit import ToolKitBase

        file = f"{module_name}.py"
        module = self._module(module_name)
        kinds = _classes(module, ToolKitBase)
        if len(kinds) != 1:
            found = ", ".join(kind.__name__ for kind in kinds) or "none"
            raise UserError(f"domain {self.name}: {file} must have one class of tau2's ToolKitBase; it has {found}")
        [kind] = kinds
        table: Any = kind.__annotations__.get("db")
        table = getattr(module, table, None) if isinstance(table, str) else table
        if not (isinstance(table, type) and issubclass(table, DB)):
            raise UserError(
                f"domain {self.name}: {file}: {kind.__name__} must say the class of its database, a subclass of "
                "tau2's DB: a line `db: MyDB` in its body"
            )
        path = next((path for end in ("json", "toml") if (path := self.folder / f"{database}.{end}").is_file()), None)
        if path is None:
            raise UserError(f"domain {self.name}: {file} is there, {database}.json or {database}.toml is missing")
        try:
            data = cast(Any, table).load(str(path))
        except (Exception, SystemExit) as error:
            raise self._wrong(path.name, error) from error
        try:
            toolkit: ToolKitBase = kind(data)
        except (Exception, SystemExit) as error:
            raise self._wrong(file, error) from error
        return toolkit

    def _module(self, name: str) -> ModuleType:
        """A module of the folder; the folder is a package of its own, so that its modules can import each other."""
        package = f"tau2_domain_{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"
        if package not in sys.modules:
            holder = ModuleType(package)
            holder.__path__ = [str(self.folder)]
            sys.modules[package] = holder
        try:
            return importlib.import_module(f"{package}.{name}")
        except (Exception, SystemExit) as error:
            raise self._wrong(f"{name}.py", error) from error

    def _text(self, file: str) -> str:
        try:
            return (self.folder / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(file, error) from error

    def _wrong(self, file: str, error: BaseException) -> UserError:
        """What to say of a file that fails, with the line of this domain's code in which it does."""
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == self.folder
        ]
        line = f", line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else ""
        said = " ".join(str(error).split())[:300]
        return UserError(f"domain {self.name}: {self.folder / file}: {type(error).__name__}: {said}{line}")


def _classes(module: ModuleType, base: type) -> list[Any]:
    """The subclasses of `base` that a module defines, but those that others of them are made from."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    return [kind for kind in found if not any(kind in other.__mro__[1:] for other in found)]
