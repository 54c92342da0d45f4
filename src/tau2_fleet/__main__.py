"""`python -m tau2_fleet COMMAND …` is `tau2-fleet COMMAND …`."""

import sys

from tau2_fleet.cli import main

sys.exit(main())
