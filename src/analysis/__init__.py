"""Reads finished run directories for people: trajectories for `src.show`, times and costs for `src.analyze`."""
