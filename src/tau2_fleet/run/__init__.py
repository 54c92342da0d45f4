"""One run told top to bottom: its jobs, plan, directory, interrupts, outcome and files.

Only here and in `config/` is Hydra known.
"""
