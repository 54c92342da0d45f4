"""tau2-fleet: a Hydra-configured experiment runner for the customer-service benchmark τ²-bench."""

import os
import resource
import sys

__version__ = "0.2.0"

if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
    # Where files may not grow, Python keeps half a module's bytecode, and fails on it from then on.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
