"""tau2-fleet: a Hydra-configured experiment runner for the customer-service benchmark τ²-bench."""

__version__ = "0.2.0"
