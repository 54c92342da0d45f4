"""Where the program's own files lie, in a checkout and in an installed wheel alike; standard library only."""

from __future__ import annotations

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
