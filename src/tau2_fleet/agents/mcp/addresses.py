"""Where clients that come by themselves find their simulations: in a file with a line for each. `run.py` writes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from tau2_fleet.errors import writing

ADDRESSES_FILE = "addresses.jsonl"
_LONGEST = 60


class Addresses:
    """The file; nobody but its owner can read it, as tokens stand in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entry: dict[str, Any]) -> None:
        """One simulation more.

        Raises:
            UserError: it cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, json.dumps(entry).encode() + b"\n")  # at once: other processes of this run write too
            finally:
                os.close(file)


def client_name(domain: str, task_id: str, trial: int) -> str:
    """A file's name for a simulation, whatever characters its task has, and however many."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", task_id)
    if plain != task_id or len(plain) > _LONGEST:
        plain = f"{plain[:_LONGEST]}-{hashlib.sha256(task_id.encode()).hexdigest()[:8]}"
    return f"{domain}-{plain}-{trial}"
