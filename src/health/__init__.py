"""The checks of `python -m src.doctor`: what a configuration needs, and whether it is there."""
