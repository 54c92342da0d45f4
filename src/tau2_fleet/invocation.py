"""How the user started this program, so that a command it prints runs as typed, from where the user is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tau2_fleet.paths import CHECKOUT, PACKAGE

_NAME = "tau2-fleet"


def typed(command: str, *arguments: str) -> str:
    """A command of this program with its arguments, quoted for the shell.

    `tau2-fleet show DIR` where that command is at hand; `python -m src.main show DIR` in a checkout without it.
    """
    program, is_runner = _program()
    words = [] if is_runner and command == "run" else [command]
    return " ".join([program, *map(shlex.quote, [*words, *arguments])])


def install_hint(anew: bool = False) -> str:
    """What to type for a package that is missing; `anew`: for one whose files were altered."""
    if CHECKOUT is None:
        return f"pip install --force-reinstall {_NAME}"
    return "rm -rf .venv && make install" if anew else "make install"


def _program() -> tuple[str, bool]:
    """What to type for this program, and whether that means the command `run` unless another one follows."""
    beside = Path(sys.executable).parent / _NAME
    if _is_on_path(_NAME, beside):
        return _NAME, False
    started = Path(sys.argv[0]) if sys.argv else Path()
    if started.name == _NAME and started.is_file():
        return shlex.quote(_short(started)), False
    if CHECKOUT is not None and started == CHECKOUT / "src" / "main.py":
        return f"{_python()} -m src.main", True
    if started == PACKAGE / "__main__.py":
        return f"{_python()} -m tau2_fleet", False
    return _NAME, False


def _python() -> str:
    """The interpreter's shortest name that means this one."""
    running = Path(sys.executable)
    for name in ("python", "python3"):
        if _is_on_path(name, running.parent / name):
            return name
    return shlex.quote(_short(running))


def _is_on_path(name: str, wanted: Path) -> bool:
    found = shutil.which(name)
    return found is not None and os.path.abspath(found) == os.path.abspath(wanted)


def _short(path: Path) -> str:
    """The path as one would type it here; links, such as an environment's python, are not followed."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
