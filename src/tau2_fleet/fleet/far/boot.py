"""How the far program comes to a host: by the pipe that it then talks over, as one line of Python; links ask here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

BOOT = 'exec(open(0,"rb",0,closefd=False).readline())'
"""What a far Python is called with (`-c`): it reads one line, byte by byte so as to take nothing else, and runs it."""

_REAPER = "tau2_fleet.fleet.reaper"
_MODULES = (f"{_REAPER}.processes", f"{_REAPER}.listen", f"{_REAPER}.sockets", "tau2_fleet.fleet.far.program")
"""All that the far program consists of, each after those that it imports."""

_LOADER = """\
import sys, types
if sys.version_info < (3, 10):
    sys.exit("tau2-fleet: Python 3.10 or newer is needed there, this is " + sys.version.split()[0])
for name, source in {modules!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main()
"""


@cache
def program_line() -> bytes:
    """The line that `BOOT` reads."""
    modules = [(name, Path(str(import_module(name).__file__)).read_text(encoding="utf-8")) for name in _MODULES]
    return f"exec({_LOADER.format(modules=modules)!r})\n".encode("ascii", "backslashreplace")
