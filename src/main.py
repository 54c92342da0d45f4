"""`python -m src.main key=value …` in a checkout: `tau2-fleet run` without any installation of this project."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

if __name__ == "__main__":
    from tau2_fleet.cli import run

    sys.exit(run())
