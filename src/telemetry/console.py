"""The terminal: all console output of the program goes through these two consoles."""

from __future__ import annotations

from rich.console import Console

out = Console(soft_wrap=True, highlight=False)
"""Results: what a user may pipe on."""

err = Console(stderr=True, soft_wrap=True, highlight=False)
"""Progress, warnings, errors."""
