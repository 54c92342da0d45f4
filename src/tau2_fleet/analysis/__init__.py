"""Reads finished run directories for people: trajectories, rewards, times and costs."""
