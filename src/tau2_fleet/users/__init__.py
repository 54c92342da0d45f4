"""The customers: one file a scaffold."""
