"""tau2-fleet: a Hydra-configured experiment runner for the customer-service benchmark τ²-bench."""
