"""Many conversations at once: what to run, where the results are kept, how far it has come."""
