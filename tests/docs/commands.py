"""The commands that README and docs show, each with what its block says of it behind `sh`.

`run`: it runs here, `DIR` being the directory of a small run. `checkout`: a target of the Makefile, or something typed
beside one. `needs=gpu`, `needs=key`, `needs=data`, `needs=cluster`: it cannot run here, so only its words are checked.
`example`, `log`: tests of their own run it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = ("run", "checkout", "example", "log", "needs=gpu", "needs=key", "needs=data", "needs=cluster")
_BLOCK = re.compile(r"^```sh *([^\n]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of a block."""

    page: str
    kind: str
    line: str

    @property
    def words(self) -> list[str]:
        """As a shell takes them apart, comments left out."""
        return shlex.split(self.line, comments=True)


def shown() -> Iterator[Shown]:
    """Every command of every page."""
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for kind, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    yield Shown(name, kind, line)
