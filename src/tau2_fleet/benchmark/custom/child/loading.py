"""Imports somebody's `tau2` quietly: no `.env`, no logging, and stand-ins for what only its other parts need."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_MOST_STAND_INS = 40
PACKAGE = "tau2"


class UnusableCode(Exception):
    """What is wrong with the code or the question, in a line for people."""


class _Uninstalled(type):
    """The class of whatever is taken from a package that is not installed: it can be named, not used.

    While the code is imported, calls of it give more of its kind, for decorators and constants.
    """

    importing = True

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _uninstalled(f"{cls.__qualname__}.{name}")

    def __call__(cls, *_arguments: Any, **_options: Any) -> Any:
        if _Uninstalled.importing:
            return _uninstalled(f"{cls.__qualname__}(...)")
        raise ModuleNotFoundError(f"{cls.__qualname__} was used, and its package is not installed")


def _uninstalled(name: str) -> Any:
    return _Uninstalled(name, (), {"__qualname__": name})


class _StandIn(ModuleType):
    """A module of a package that is not installed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _uninstalled(f"{self.__name__}.{name}")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives stand-ins for some packages, and for their modules."""

    def __init__(self) -> None:
        self.packages: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        return


def load_registry(root: Path) -> tuple[Any, list[str]]:
    """The registry of the `tau2` in this folder, and the packages that it names and that are not installed.

    Voice, web services and the like are imported by the registry too; a domain that needs none of it runs without.

    Raises:
        UnusableCode: it cannot be imported, or what is imported is another one.
    """
    sys.path.insert(0, str(root))
    _be_quiet()
    stand_ins = _StandIns()
    sys.meta_path.append(stand_ins)
    while True:
        try:
            module = importlib.import_module(f"{PACKAGE}.registry")
            break
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", PACKAGE, *stand_ins.packages) or len(stand_ins.packages) == _MOST_STAND_INS:
                raise UnusableCode(f"cannot be imported: {describe(error, root)}") from error
            stand_ins.packages.append(missing)
            for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
                del sys.modules[name]
        except BaseException as error:
            raise UnusableCode(
                f"cannot be imported by Python {sys.version.split()[0]}: {describe(error, root)}"
            ) from error
    _Uninstalled.importing = False
    where = Path(sys.modules[PACKAGE].__file__ or os.devnull).resolve()
    if not where.is_relative_to(root.resolve()):
        raise UnusableCode(f"another tau2 was imported in its place, from {where.parent}")
    registry = getattr(module, "registry", None)
    if registry is None:
        raise UnusableCode("its module tau2.registry has no `registry`")
    return registry, stand_ins.packages


def _be_quiet() -> None:
    warnings.simplefilter("ignore")
    try:
        dotenv = importlib.import_module("dotenv")
    except ImportError:
        pass
    else:
        vars(dotenv)["load_dotenv"] = lambda *_arguments, **_options: True
    with contextlib.suppress(ImportError):
        importlib.import_module("loguru").logger.remove()


def describe(error: BaseException, root: Path) -> str:
    """An exception in a line, with the line of somebody's code in which it was raised."""
    said = " ".join(str(error).split())[:400]
    where = ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    trace, line = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(str(root)):
            line = f" ({Path(file).relative_to(root)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {said}{where or line}"
