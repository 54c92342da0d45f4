"""Counts the trajectories on which both evaluators were compared; `tests/conftest.py` prints the sum at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass
class RunCounters:
    """By domain."""

    compared: Counter[str] = field(default_factory=Counter)
    agreed: Counter[str] = field(default_factory=Counter)
    rewarded: Counter[str] = field(default_factory=Counter)
    """With a reward of 1."""
    refused: Counter[str] = field(default_factory=Counter)
    """On which the package's evaluator failed with an exception; ours must give no reward."""

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For another process."""
        return {part.name: dict(getattr(self, part.name)) for part in fields(self)}

    def add(self, other: Mapping[str, Mapping[str, int]]) -> None:
        """Count what another process counted, from its `as_dict`."""
        for name, counts in other.items():
            getattr(self, name).update(counts)

    def lines(self) -> list[str]:
        """What to print; nothing when nothing was compared."""
        total = sum(self.compared.values())
        if not total:
            return []
        parts = ", ".join(
            f"{domain} {self.agreed[domain]}/{number} ({self.rewarded[domain]} with reward 1)"
            for domain, number in sorted(self.compared.items())
        )
        lines = [f"differential: {sum(self.agreed.values())} of {total} trajectories agree with the package: {parts}"]
        if self.refused:
            lines.append(f"differential: on {sum(self.refused.values())} of them the package raised an exception")
        return lines


TALLY = RunCounters()
