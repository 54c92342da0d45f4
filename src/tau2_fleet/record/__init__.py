"""The run directory: append to the record, lock it, read it."""

from tau2_fleet.record.frame import read

__all__ = ["read"]
