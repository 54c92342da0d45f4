"""The agents under test: one file a scaffold, and the hand-over of a turn to an expert."""
