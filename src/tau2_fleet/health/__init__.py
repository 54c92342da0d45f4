"""The checks of `tau2-fleet doctor`: what a configuration needs, and whether it is there."""
