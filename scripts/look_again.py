"""Names the model and price files that nobody has compared with their providers for long; `make lint` calls it.

A notice, never a failure: the days go by without anybody changing a line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date

from tau2_fleet.config.lifetimes import looked_long_ago
from tau2_fleet.paths import CONF_DIR, DATA_DIR


def main(today: Callable[[], date] = date.today) -> int:
    """Print a line for each such file; the status is always 0."""
    for line in looked_long_ago(today(), {CONF_DIR / "llm": "lifetime", DATA_DIR / "prices": ""}):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
