"""Whether the installed benchmark is as it was published: `make install` asks, and fetches it anew if it is not."""

from __future__ import annotations

import sys

from tau2_fleet.health.finding import FindingState
from tau2_fleet.health.machine import check_benchmark

if __name__ == "__main__":
    found = check_benchmark()
    sys.exit(found.text if found.state is FindingState.problem else 0)
