"""The files that `docs/extending.md` shows, so that what it says is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
_FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.M | re.S)


def write_examples(folder: Path) -> None:
    """Write every file of the page below a folder."""
    for name, text in _FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
