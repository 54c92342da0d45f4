"""Any checkout, wheel or installed folder of tau2, run in a process of its own; `domain.py` is the way in."""
