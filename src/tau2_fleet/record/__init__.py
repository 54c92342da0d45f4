"""The run directory: append to the record, lock it, read it."""
