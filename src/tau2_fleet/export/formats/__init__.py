"""One file a format; `--format NAME` finds the class `Name` in `NAME.py`."""
