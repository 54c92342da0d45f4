"""A hand on a run that goes on: its socket and its heartbeat, and the command `ctl` that uses them."""
