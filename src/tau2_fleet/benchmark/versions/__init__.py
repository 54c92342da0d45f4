"""The versions of the benchmark, a module each: `tau2-1.0.1` is `tau2_1_0_1.py`, its class `Version`."""
