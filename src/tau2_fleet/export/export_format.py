"""What an export format is, here and in code of one's own, and what it is given to work with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tau2_fleet.export.runs import Filters, Json, Run

Arguments = argparse._ArgumentGroup
"""Where a format adds its options: `add_argument` as everywhere."""


@dataclass
class Export:
    """One call of `tau2-fleet export`."""

    runs: Sequence[Run]
    path: Path
    """Where to write: a file, or a folder, which takes its place when `write` has ended well."""
    target: Path
    """What that place is, to be told to people."""
    options: argparse.Namespace
    """The command line, with the arguments that the format added."""
    filters: Filters = field(default_factory=Filters)
    notes: list[str] = field(default_factory=list)
    """Lines for people, printed at the end."""

    def records(self) -> Iterator[tuple[Run, Json]]:
        """Every record that the filters let through, run by run, one at a time in memory; keys are redacted."""
        for run in self.runs:
            for record in run.records():
                yield run, record


class ExportFormat(Protocol):
    """One form in which simulations leave this program. Made without arguments."""

    folder: bool
    """Whether it writes a folder, in place of one file."""

    def add_arguments(self, parser: Arguments) -> None:
        """Options of its own; they are in `export.options`."""
        ...

    def file_name(self, options: argparse.Namespace) -> str:
        """What its file or folder is called where `-o` does not say."""
        ...

    def write(self, export: Export) -> None:
        """Write `export.path`, a file (`record.atomic.replaced`) or a folder, which exists already and is empty.

        Raises:
            UserError: it cannot be done.
            Refused: these runs do not qualify.
        """
        ...


class Refused(Exception):
    """The runs do not qualify for this format: the reasons, one each."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons
