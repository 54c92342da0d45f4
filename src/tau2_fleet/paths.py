"""Where the program's own files lie, in a checkout and in an installed wheel alike; standard library only."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IMPORT_ROOT = PACKAGE.parent
"""What must be on the path of a child process for it to import this package."""
_IN_CHECKOUT = (IMPORT_ROOT.parent / "conf" / "config.yaml").is_file()
CHECKOUT = IMPORT_ROOT.parent if _IN_CHECKOUT else None
"""The checkout that this program runs from; None when it is installed from a wheel."""
_HOME = PACKAGE if CHECKOUT is None else CHECKOUT

CONF_DIR = _HOME / "conf"
"""The configuration groups; read-only."""
DATA_DIR = _HOME / "data"
"""Price tables and latency profiles; read-only."""

_SCRATCH = "TAU2_FLEET_SCRATCH_DIR"


def use_scratch_dir(folder: str | None) -> None:
    """Where this process and its children keep what outlives a run (`scratch_dir`); None: where `caches` says."""
    if folder is None:
        os.environ.pop(_SCRATCH, None)
    else:
        os.environ[_SCRATCH] = str(Path(folder).expanduser().absolute())


def caches() -> Path:
    """The folder for what outlives a run: compile caches, learned figures. It need not be there yet."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get(_SCRATCH) or Path(home, "tau2-fleet"))
