"""How a version of the benchmark scores: one module each, found by its name (`tau2-1.0.1` is `tau2_1_0_1.py`)."""
