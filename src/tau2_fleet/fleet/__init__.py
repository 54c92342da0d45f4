"""The servers of a run: planned on the GPUs, launched, watched, routed to, and never left behind."""
