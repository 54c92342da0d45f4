"""Scores: the benchmark's reward of one conversation, and the statistics over many."""
