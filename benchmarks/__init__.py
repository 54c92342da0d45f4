"""Speed and memory, side by side with the tau2 package in one run: `python -m benchmarks`."""
